"""Load conditions against a process: each one holds or is named, without the host's details."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from safe_triton import LoadConditions
from safe_triton.errors import ConditionError
from safe_triton.runtime.conditions import check_conditions


def args(folder: Path | str = "/models/digits", kind: str = "CPU", device: int = 0) -> dict[str, str]:
    """What Triton would pass to ``initialize``."""
    return {
        "model_repository": str(folder),
        "model_instance_kind": kind,
        "model_instance_device_id": str(device),
    }


def refusal(
    conditions: LoadConditions, given: dict[str, str], environment: dict[str, str] | None = None
) -> ConditionError:
    with pytest.raises(ConditionError) as raised:
        check_conditions(conditions, given, environment or {})
    assert raised.value.message.startswith(raised.value.reason)
    return raised.value


class TestModelRoot:
    """The model's folder is beneath the root by components, after links are resolved."""

    @pytest.fixture
    def models(self, tmp_path: Path) -> Path:
        """A root with one model, and a sibling whose name begins like it."""
        for folder in ("models/digits/1", "models-evil/digits/1"):
            (tmp_path / folder).mkdir(parents=True)
        return tmp_path / "models"

    def test_beneath(self, models: Path) -> None:
        """A folder at any depth below the root loads."""
        check_conditions(LoadConditions(model_root=str(models)), args(models / "digits"))
        check_conditions(LoadConditions(model_root=str(models.parent)), args(models / "digits"))
        check_conditions(LoadConditions(model_root="/"), args(models / "digits"))

    def test_a_sibling_with_the_same_beginning(self, models: Path) -> None:
        """``/models-evil`` is not beneath ``/models``."""
        error = refusal(LoadConditions(model_root=str(models)), args(str(models) + "-evil/digits"))
        assert error.reason == "condition.model_root"
        assert str(models) not in error.message

    def test_dots_lead_out(self, models: Path) -> None:
        """``..`` is resolved before the comparison."""
        refusal(LoadConditions(model_root=str(models)), args(f"{models}/../models-evil/digits"))

    def test_a_link_leads_out(self, models: Path) -> None:
        """A link inside the root counts as what it points to."""
        (models / "linked").symlink_to(models.parent / "models-evil" / "digits")
        refusal(LoadConditions(model_root=str(models)), args(models / "linked"))

    def test_a_root_behind_a_link(self, models: Path) -> None:
        """The declared root may itself be a link."""
        link = models.parent / "current"
        link.symlink_to(models)
        check_conditions(LoadConditions(model_root=str(link)), args(models / "digits"))

    def test_none_declared(self) -> None:
        """Without a root any folder loads."""
        check_conditions(LoadConditions(), args("/nowhere"))


class TestEnvironment:
    """Each variable has exactly the declared value."""

    CONDITIONS = LoadConditions(environment={"SANDBOX": "strict", "REGION": "eu"})

    def test_exact(self) -> None:
        """Further variables do not matter."""
        check_conditions(self.CONDITIONS, args(), {"SANDBOX": "strict", "REGION": "eu", "HOME": "/root"})

    @pytest.mark.parametrize("value", [None, "", "Strict", "strict ", "strict,lax"])
    def test_anything_else(self, value: str | None) -> None:
        """Absent, empty, other case or longer is not the value; neither value is in the text."""
        environment = {"REGION": "eu"} | ({} if value is None else {"SANDBOX": value})
        error = refusal(self.CONDITIONS, args(), environment)
        assert error.reason == "condition.environment"
        assert "SANDBOX" in error.message
        assert "strict" not in error.message.lower()

    def test_the_processs_own_by_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without an argument the process's environment is asked, as it is now."""
        monkeypatch.setenv("SANDBOX", "strict")
        monkeypatch.setenv("REGION", "eu")
        check_conditions(self.CONDITIONS, args())
        monkeypatch.delenv("SANDBOX")
        with pytest.raises(ConditionError):
            check_conditions(self.CONDITIONS, args())
        assert "SANDBOX" not in os.environ


class TestDevices:
    """Instance kind and GPU are among the declared ones."""

    @pytest.mark.parametrize("kind", ["CPU", "GPU", "MODEL"])
    def test_every_kind_by_default(self, kind: str) -> None:
        """A model that declares nothing loads as any kind."""
        check_conditions(LoadConditions(), args(kind=kind))

    @pytest.mark.parametrize(
        ("conditions", "given", "reason", "text"),
        [
            (
                {"instance_kinds": ("GPU",)},
                {"kind": "CPU"},
                "condition.instance_kind",
                "instance kind CPU, declared GPU",
            ),
            ({"instance_kinds": ("CPU", "MODEL")}, {"kind": "GPU"}, "condition.instance_kind", "declared CPU, MODEL"),
            ({"gpu_ids": (0, 1)}, {"kind": "GPU", "device": 2}, "condition.gpu", "GPU 2, declared 0, 1"),
        ],
    )
    def test_others_are_named(self, conditions: Any, given: Any, reason: str, text: str) -> None:
        """What is there and what is declared are both in the text."""
        error = refusal(LoadConditions(**conditions), args(**given))
        assert error.reason == reason
        assert text in error.message

    def test_declared_gpus(self) -> None:
        """A declared GPU loads; ids do not matter to a CPU instance, nor an empty list to a GPU."""
        check_conditions(LoadConditions(gpu_ids=(0, 3)), args(kind="GPU", device=3))
        check_conditions(LoadConditions(gpu_ids=(3,)), args(kind="CPU", device=0))
        check_conditions(LoadConditions(), args(kind="GPU", device=7))


def test_a_wrong_declaration_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a stub a wrong declaration is kept; checking it raises its problem."""
    monkeypatch.setattr("safe_triton._declared.is_triton_stub", lambda: True)
    conditions = LoadConditions(gpu_ids=("0",))  # type: ignore[arg-type]
    with pytest.raises(Exception, match="gpu_ids must be a whole number"):
        check_conditions(conditions, args())
