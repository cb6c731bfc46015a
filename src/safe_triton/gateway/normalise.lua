-- Says who calls and, for gRPC, which model, in headers that only this script sets (a client's are taken away before).
-- Nothing is allowed here: what has no identity or no model is refused by the rules that follow, as is all that
-- comes after a failure of this script.

collectgarbage("setpause", 1000)  -- what a request leaves is little, and each search for it looks at all there is

local byte, find, sub = string.byte, string.find, string.sub

local MOST_FIELDS = 16384  -- of a message and its tensors: others wait for this thread
local MOST_NAME = 128
local WINDOW = 512
local MOST_ELEMENTS = 2 ^ 53
local NOT_ONE = "not one plain message that names one model"
local TOO_MANY = "a shape names more elements than can be counted"
local NO_ROWS = "a shape names a batch of no rows"
local ENCODINGS = {identity = true, deflate = true, gzip = true}
local REFUSED = {[401] = "16", [403] = "7", [413] = "8", [400] = "3", [415] = "12", [431] = "8"}

local function refuse(handle, status, text)
  handle:respond({[":status"] = tostring(status), ["grpc-status"] = REFUSED[status]}, text)
end

-- The identity of a client certificate; nil where there is none, false where it is nobody's or two identities'.
local function of_certificate(handle)
  local ssl = handle:streamInfo():downstreamSslConnection()
  if ssl == nil or not ssl:peerCertificateValidated() then return nil end
  local found = false
  for _, names in ipairs({ssl:uriSanPeerCertificate(), ssl:dnsSansPeerCertificate()}) do
    for _, name in ipairs(names) do
      local identity = CERTIFICATES[name]
      if identity ~= nil and found and identity ~= found then return false end
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
  local identity = nil
  if HAS_CERTIFICATES then identity = of_certificate(handle) end
  if identity == false then return nil, 401, "this client certificate is no identity's" end
  return identity or ANONYMOUS, 401, "a credential is needed"
end

-- The reader of a body: bytes by their place, from 0, of which most are near the beginning and read in one call.
local function reader(body, size)
  local first = body:getBytes(0, math.min(WINDOW, size))
  return function(at, length)
    if at + length <= #first then return sub(first, at + 1, at + length) end
    return body:getBytes(at, length)
  end
end

-- Length and beginning of the field at this place, which ends before `last`; nil: another reader could read it otherwise.
local function field(read, at, last)
  local head = read(at, math.min(6, last - at))
  local tag = byte(head, 1)
  if tag >= 128 or tag % 8 ~= 2 then return nil end
  local length, scale = 0, 1
  for place = 2, 6 do
    local part = byte(head, place)
    if part == nil then return nil end
    length = length + part % 128 * scale
    if part < 128 then
      at = at + place
      if at + length > last then return nil end
      return tag, at, length
    end
    scale = scale * 128
  end
  return nil
end

-- The product of packed numbers, how many there are, and the first; below nothing, as no length is, is beyond all.
local function product(text)
  local found, number, scale = 1, 0, 1
  local numbers, first = 0, nil
  for place = 1, #text do
    local part = byte(text, place)
    number = number + part % 128 * scale
    if part < 128 then
      numbers, first = numbers + 1, first or number
      found, number, scale = found * number, 0, 1
    else
      scale = scale * 128
    end
  end
  return found, numbers, first
end

-- The number of fields of one tensor, whose third is its shape; or nil and why. Triton multiplies in 64 bits, takes what
-- wraps around for a few elements, and the model's process ends. A batch of no rows it takes for a shape without a batch,
-- and what follows for rows, which fails whoever is in the same batch.
local function count_fields(read, at, last)
  local elements, fields, dimensions, rows = 1, 0, 0, nil
  while at < last do
    local tag, begin, length = field(read, at, last)
    fields = fields + 1
    if tag == nil or fields > MOST_FIELDS or tag == 26 and length > WINDOW then return nil, TOO_MANY end
    if tag == 26 and length > 0 then
      local found, numbers, first = product(read(begin, length))
      elements, dimensions, rows = elements * found, dimensions + numbers, rows or first
    end
    at = begin + length
  end
  if dimensions > 1 and rows == 0 then return nil, NO_ROWS end
  if not (elements < MOST_ELEMENTS) then return nil, TOO_MANY end
  return fields
end

-- Model and version of one gRPC message; or nil, the status and why, where two readers could read two names: more than one
-- message, a compressed one, a field that is not length-delimited (all that these messages have are), a name twice.
local function target(body, has_tensors)
  local size = body:length()
  if size < 5 then return nil, 400, NOT_ONE end
  local read = reader(body, size)
  local flag, a, b, c, d = byte(read(0, 5), 1, 5)
  if flag ~= 0 then return nil, 415, "no compressed messages" end
  if ((a * 256 + b) * 256 + c) * 256 + d ~= size - 5 then return nil, 400, NOT_ONE end
  local at, fields, model, version = 5, 0, nil, nil
  while at < size do
    local tag, begin, length = field(read, at, size)
    fields = fields + 1
    if tag == nil or fields > MOST_FIELDS then return nil, 400, NOT_ONE end
    if tag == 10 then
      if model ~= nil or length > MOST_NAME then return nil, 400, NOT_ONE end
      model = length > 0 and read(begin, length) or ""
    elseif tag == 18 then
      if version ~= nil or length > MOST_NAME then return nil, 400, NOT_ONE end
      version = length > 0 and read(begin, length) or ""
    elseif tag == 42 and has_tensors then
      local inner, why = count_fields(read, begin, begin + length)
      if inner == nil then return nil, 400, why end
      fields = fields + inner
    end
    at = begin + length
  end
  version = version or ""
  if find(version, "^%d*$") == nil then return nil, 400, NOT_ONE end
  return model or "", version
end

-- What Triton would answer by a reset, which looks as if it were ill.
local function is_grpc(headers)
  local kind, encoding = headers:get("content-type"), headers:get("grpc-encoding")
  local is_kind = kind == nil or kind == "application/grpc" or find(kind, "^application/grpc[+;]") ~= nil
  return is_kind and (encoding == nil or ENCODINGS[encoding] == true)
end

-- Whether Triton would refuse them, now or now and then; each counts for 32 bytes more than it has.
local function are_long(headers)
  local size = 0
  for name, value in pairs(headers) do
    if not TAKEN_AWAY[name] then size = size + #name + #value + 32 end
  end
  return size > MOST_METADATA
end

local function name_target(handle, path)
  local body = handle:body()
  if body == nil then return refuse(handle, 400, NOT_ONE) end
  local model, version, why = target(body, path == INFER)
  if model == nil then return refuse(handle, version, why) end
  if body:length() - 5 > (MOST_BYTES[model] or DEFAULT_MOST_BYTES) then
    return refuse(handle, 413, "this model takes no request as large")
  end
  if find(model, "^[%w_][%w_.-]*$") == nil then return end
  local headers = handle:headers()  -- once more: the first do not outlive the wait for a body
  if version ~= "" then headers:replace("x-safe-triton-version", version) end
  headers:replace("x-safe-triton-cluster", "grpc-" .. model)
  headers:replace("x-safe-triton-model", model)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get("x-safe-triton-identity") == nil then  -- else the filter for keys has set it
    local identity, status, text = who(handle, headers)
    if identity == nil then return refuse(handle, status, text) end
    headers:replace("x-safe-triton-identity", identity)
  end
  local path = headers:get(":path")
  if sub(path, 1, #SERVICE) ~= SERVICE then return end  -- over HTTP the routes say the rest
  if not is_grpc(headers) then return refuse(handle, 415, "not gRPC") end
  if are_long(headers) then return refuse(handle, 431, LONG) end
  if MODEL_METHODS[path] then name_target(handle, path) end
end
