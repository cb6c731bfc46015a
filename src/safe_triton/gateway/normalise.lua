-- Says who calls and for which model, in headers that only this script sets (a client's are taken away before).
-- Nothing is allowed here: what has no identity or no model is refused by the rules that follow, as is all that
-- comes after a failure of this script.

local SERVICE = "/inference.GRPCInferenceService/"
local MOST_FIELDS = 4096
local MOST_NAME = 128
local WINDOW = 512
local NOT_ONE = "not one plain message that names one model"
local ENCODINGS = {identity = true, deflate = true, gzip = true}
local REFUSED = {[401] = "16", [403] = "7", [413] = "8", [400] = "3", [415] = "12"}

local function refuse(handle, status, text)
  handle:respond({[":status"] = tostring(status), ["grpc-status"] = REFUSED[status]}, text .. "\n")
end

local function of_certificate(handle)
  local ssl = handle:streamInfo():downstreamSslConnection()
  if ssl == nil or not ssl:peerCertificateValidated() then return nil end
  local found = nil
  for _, names in ipairs({ssl:uriSanPeerCertificate(), ssl:dnsSansPeerCertificate()}) do
    for _, name in ipairs(names) do
      local identity = CERTIFICATES[name]
      if identity ~= nil and found ~= nil and identity ~= found then return nil end
      found = identity or found
    end
  end
  return found
end

-- The identity of who shows no key; or nil, the status and why.
local function who(handle, headers)
  for header, subjects in pairs(SUBJECTS) do
    local subject = headers:get(header)
    if subject ~= nil then return subjects[subject], 403, "this token's subject is no identity here" end
  end
  if headers:get("authorization") ~= nil then return nil, 401, "this credential is not accepted" end
  return HAS_CERTIFICATES and of_certificate(handle) or ANONYMOUS, 401, "a credential is needed"
end

-- Model and version of one gRPC message; or nil and the status, where two readers could read two names: more than one
-- message, a compressed one, a field that is not length-delimited (all that these messages have are), a name twice.
local function target(body)
  local size = body:length()
  if size < 5 then return nil, 400 end
  local first = body:getBytes(0, math.min(WINDOW, size))  -- most names, in one call
  local function bytes(at, length)
    if at + length <= #first then return string.sub(first, at + 1, at + length) end
    return body:getBytes(at, length)
  end
  local flag, a, b, c, d = string.byte(first, 1, 5)
  if flag ~= 0 then return nil, 415 end
  if ((a * 256 + b) * 256 + c) * 256 + d ~= size - 5 then return nil, 400 end
  local at, fields, found = 5, 0, {}
  while at < size do
    fields = fields + 1
    local head = bytes(at, math.min(6, size - at))
    local tag = string.byte(head, 1)
    if fields > MOST_FIELDS or tag >= 128 or tag % 8 ~= 2 then return nil, 400 end
    local length, scale, used, part = 0, 1, 1, 0
    repeat
      used = used + 1
      part = string.byte(head, used)
      if part == nil then return nil, 400 end
      length = length + part % 128 * scale
      scale = scale * 128
    until part < 128
    at = at + used
    if at + length > size then return nil, 400 end
    if tag == 10 or tag == 18 then
      if found[tag] ~= nil or length > MOST_NAME then return nil, 400 end
      found[tag] = length > 0 and bytes(at, length) or ""
    end
    at = at + length
  end
  local version = found[18] or ""
  if string.find(version, "^%d*$") == nil then return nil, 400 end
  return found[10] or "", version
end

-- What Triton would answer by a reset, which looks as if it were ill.
local function is_grpc(headers)
  local kind, encoding = headers:get("content-type"), headers:get("grpc-encoding")
  local is_kind = kind == nil or kind == "application/grpc" or string.find(kind, "^application/grpc[+;]") ~= nil
  return is_kind and (encoding == nil or ENCODINGS[encoding] == true)
end

local function is_name(model)
  return string.find(model, "^[%w_][%w_.-]*$") ~= nil
end

-- Model and version; neither, for what is of the whole server; or false, the status and why.
local function of_grpc(handle, headers, path)
  if string.sub(path, 1, #SERVICE) == SERVICE and not is_grpc(headers) then return false, 415, "not gRPC" end
  if not MODEL_METHODS[path] then return nil end
  local body = handle:body()
  if body == nil then return false, 400, NOT_ONE end
  local model, version = target(body)
  if model == nil then return false, version, version == 415 and "no compressed messages" or NOT_ONE end
  if body:length() - 5 > (MOST_BYTES[model] or DEFAULT_MOST_BYTES) then
    return false, 413, "this model takes no request as large"
  end
  return model, version
end

-- The same, from a path.
local function of_http(headers, path)
  if headers:get("content-encoding") ~= nil then return false, 415, "no compressed bodies" end
  local model, rest = string.match(path, "^/v2/models/([^/]+)(.*)$")
  return model, rest and string.match(rest, "^/versions/(%d+)") or ""
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get("x-safe-triton-identity") == nil then  -- else the filter for keys has set it
    local identity, status, text = who(handle, headers)
    if identity == nil then return refuse(handle, status, text) end
    headers:replace("x-safe-triton-identity", identity)
  end
  local path, protocol, model, version, why = headers:get(":path"), "http"
  if string.sub(path, 1, 3) == "/v2" then
    model, version, why = of_http(headers, path)
  else
    protocol = "grpc"
    model, version, why = of_grpc(handle, headers, path)
    headers = handle:headers()  -- once more: the first do not outlive the wait for a body
  end
  if model == false then return refuse(handle, version, why) end
  if model ~= nil and is_name(model) then
    if version ~= "" then headers:replace("x-safe-triton-version", version) end
    headers:replace("x-safe-triton-cluster", protocol .. "-" .. model)
    headers:replace("x-safe-triton-model", model)
  end
end
