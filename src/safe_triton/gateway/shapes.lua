-- Refuses JSON with a shape that names more elements than the body has bytes. No honest request has one, since each
-- element takes a byte or more; Triton sets memory aside for a shape before it counts, and ends where there is too little.

local LETTERS = {["73"] = true, ["68"] = true, ["61"] = true, ["70"] = true, ["65"] = true}  -- s h a p e

-- Whether a letter of the key may be hidden behind an escape, which no encoder writes for them.
local function has_escaped_letter(text)
  local at = 1
  while true do
    local from, to = string.find(text, "u00", at, true)
    if from == nil then return false end
    local slashes = 0
    while string.byte(text, from - 1 - slashes) == 92 do slashes = slashes + 1 end
    if slashes % 2 == 1 and LETTERS[string.sub(text, to + 1, to + 2)] then return true end
    at = to + 1
  end
end

local function elements(list)
  local product = 1
  for number in string.gmatch(list, "[^%[%],%s]+") do
    product = product * math.abs(tonumber(number) or 1)  -- what is no number is Triton's to refuse
  end
  return product
end

local function lies(text, size)
  local at = 1
  while true do
    local _, to = string.find(text, '"shape"', at, true)
    if to == nil then return false end
    local list = string.match(text, "^%s*:%s*(%b[])", to + 1)
    if list ~= nil and not (elements(list) <= size) then return true end  -- nor what is not comparable
    at = to + 1
  end
end

function envoy_on_request(handle)
  local claimed = handle:headers():get("inference-header-content-length")
  local body = handle:body()
  if body == nil then return end
  local size = body:length()
  -- Anything but a plain number above 0: the whole body, of which whatever Triton reads is a part.
  local length = claimed ~= nil and string.find(claimed, "^%d+$") and math.min(tonumber(claimed), size) or 0
  if length == 0 then length = size end
  local text = body:getBytes(0, length)
  if lies(text, size) or has_escaped_letter(text) then
    handle:respond({[":status"] = "400"}, "a shape names more elements than the body has bytes\n")
  end
end
