from __future__ import annotations

import asyncio

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    async def execute(self, requests):
        return [await self.answer(request) for request in requests]

    async def answer(self, request):
        kind = request.inputs()[0].as_numpy()[0].decode()
        try:
            said = await getattr(self, kind)()
        except pb_utils.TritonModelException as error:
            said = ["raised", str(error).splitlines()[0]]
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array(said, object))])

    def call(self, model="plain", values=((1.0, 2.0),), dtype="float32", name="X", outputs=("Y",), **options):
        tensor = pb_utils.Tensor(name, np.array(values, dtype))
        return pb_utils.InferenceRequest(
            model_name=model, inputs=[tensor], requested_output_names=list(outputs), **options
        )

    def said(self, response):
        if response.has_error():
            return ["error", str(response.error().code()), response.error().message().splitlines()[0]]
        return [str((each.name(), each.as_numpy().tolist())) for each in response.output_tensors()]

    async def plain(self):
        return self.said(self.call().exec())

    async def options(self):
        call = self.call("parameters", request_id="r", model_version=1, parameters={"n": 1, "s": "t", "b": False})
        return self.said(call.exec())

    async def timeout(self):
        return self.said(self.call(timeout=60_000_000).exec())

    async def memory(self):
        wanted = pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)
        return self.said(self.call(preferred_memory=wanted).exec())

    async def sequence(self):
        flags = (pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START, pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END)
        calls = [self.call("sequence_oldest", [[1]], "int32", correlation_id=77, flags=each) for each in flags]
        return [text for each in calls for text in self.said(each.exec())]

    async def fails(self):
        return self.said(self.call(values=((-1.0,),)).exec())[:2]

    async def refuses(self):
        return self.said(self.call(values=((-2.0,),)).exec())

    async def nobody(self):
        return self.said(self.call("no_such_model").exec())

    async def no_version(self):
        return self.said(self.call(model_version=9).exec())

    async def no_input(self):
        return self.said(self.call(name="NOT_X").exec())

    async def no_output(self):
        return self.said(self.call(outputs=("NOT_Y",)).exec())

    async def large(self):
        response = self.call(values=np.ones((1, 1 << 18), np.float32)).exec()
        return [str(pb_utils.get_output_tensor_by_name(response, "Y").as_numpy().sum())]

    async def as_if_one(self):
        return self.said(self.call("threads").exec())

    async def stream(self):
        return [text for each in self.call("threads", ((1.0,),)).exec(decoupled=True) for text in self.said(each)]

    async def awaited_stream(self):
        responses = await self.call("threads", ((1.0,),)).async_exec(decoupled=True)
        return [text for each in responses for text in self.said(each)]

    async def together(self):
        calls = [self.call(values=((float(n),),)).async_exec() for n in range(4)]
        return [text for each in await asyncio.gather(*calls) for text in self.said(each)]

    async def dlpack(self):
        response = await self.call("dlpack").async_exec()
        tensor = pb_utils.get_output_tensor_by_name(response, "Y")
        return [str(tensor.as_numpy().tolist()), str(tensor.is_cpu())]

    async def itself_ready(self):
        known = [pb_utils.is_model_ready("plain"), pb_utils.is_model_ready("plain", "1")]
        return [str(known), str(pb_utils.is_model_ready("no_such_model"))]
