-- Refuses JSON with a shape that names more elements than the body has bytes. No honest request has one, since each
-- element takes a byte or more; Triton sets memory aside for a shape before it counts, and ends where there is too little.
-- And JSON whose lists are nested so deep that Triton's parser, which calls itself for each, would leave its stack.

local LETTERS = {["73"] = true, ["68"] = true, ["61"] = true, ["70"] = true, ["65"] = true}  -- s h a p e
local MOST_LISTS = 4096  -- shapes in one request
local MOST_LIST = 4096   -- bytes of one
local MOST_DEPTH = 128   -- of lists and objects; a tensor has far fewer dimensions
local LIES = "a shape names more elements than the body has bytes\n"
local DEEP = "lists or objects are nested too deep\n"

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
  for number in string.gmatch(list, "[^,%s]+") do
    product = product * math.abs(tonumber(number) or 1)  -- what is no number is Triton's to refuse
  end
  return product
end

-- No byte is looked at more than a few times, however the lists are nested: others wait for this thread.
local function lies(text, size)
  local at, lists = 1, 0
  while true do
    local _, to = string.find(text, '"shape"', at, true)
    if to == nil then return false end
    local list = string.match(text, "^%s*:%s*%[([^%[%]]*)", to + 1)
    if list ~= nil then
      lists = lists + 1
      if lists > MOST_LISTS or #list > MOST_LIST then return true end
      if not (elements(list) <= size) then return true end  -- nor what is not comparable
    end
    at = to + 1
  end
end

-- Up to the first mistake in the JSON this counts as a parser does; what comes after, a parser does not reach.
local function is_deep(text)
  local at, depth, is_text = 0, 0, false
  while at < #text do
    at = at + 1
    local byte = string.byte(text, at)
    if is_text then
      if byte == 92 then at = at + 1 elseif byte == 34 then is_text = false end  -- a backslash, a quote
    elseif byte == 34 then
      is_text = true
    elseif byte == 91 or byte == 123 then  -- [ and {
      depth = depth + 1
      if depth > MOST_DEPTH then return true end
    elseif byte == 93 or byte == 125 then
      depth = depth - 1
    end
  end
  return false
end

local function why_refused(text, size, is_binary)
  if lies(text, size) or has_escaped_letter(text) then return LIES end
  return not is_binary and is_deep(text) and DEEP or nil
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
  local is_read, why = pcall(why_refused, text, size, claimed == "0")  -- with which Triton reads no JSON
  if not is_read then why = LIES end  -- an error would let the request go on
  if why ~= nil then handle:respond({[":status"] = "400"}, why) end
end
