-- Refuses JSON with a shape that names more elements than the body has bytes. No honest request has one, since each
-- element takes a byte or more; Triton sets memory aside for a shape before it counts, and ends where there is too little.
-- And a batch of no rows: Triton takes its shape for one without a batch, and what follows for rows, which fails whoever is
-- in the same batch. And JSON whose lists are nested so deep that Triton's parser, which calls itself for each, would leave
-- its stack.

collectgarbage("setpause", 1000)  -- what a request leaves is little, and each search for it looks at all there is

local byte, find, sub = string.byte, string.find, string.sub

local LETTERS = {["73"] = true, ["68"] = true, ["61"] = true, ["70"] = true, ["65"] = true}  -- s h a p e
local MOST_LISTS = 4096  -- shapes in one request
local MOST_LIST = 4096   -- bytes of one
local MOST_DEPTH = 512   -- of lists and objects: far more than a tensor has dimensions, far fewer than harm
local SMALL = 4096       -- bytes of a body that is looked at whole, since to ask for a header takes longer
local LARGE = 1048576    -- bytes that are given back at once
local LIES = "a shape names more elements than the body has bytes"
local NO_ROWS = "a shape names a batch of no rows"
local DEEP = "lists or objects are nested too deep"

-- Whether a letter of the key may be hidden behind an escape, which no encoder writes for them.
local function has_escaped_letter(text)
  local at = 1
  while true do
    local from, to = find(text, "u00", at, true)
    if from == nil then return false end
    local slashes = 0
    while byte(text, from - 1 - slashes) == 92 do slashes = slashes + 1 end
    if slashes % 2 == 1 and LETTERS[sub(text, to + 1, to + 2)] then return true end
    at = to + 1
  end
end

-- The product of a list's numbers, how many bytes it takes, and whether the first of several is 0; loops over bytes, which
-- are compiled, patterns are not.
local function elements(text, at)
  local product, begin, place = 1, at, at
  local number, is_plain = 0, true
  local numbers, is_first_0 = 0, false
  while true do
    local part = byte(text, place)
    if part ~= nil and part > 47 and part < 58 then  -- a digit
      number = number * 10 + part - 48
    else
      local is_end = part == nil or part == 91 or part == 93  -- the brackets
      if is_end or part == 44 or part == 32 or part > 8 and part < 14 then  -- a comma or a blank
        if place > begin then
          -- What is no number is Triton's to refuse.
          if not is_plain then number = math.abs(tonumber(sub(text, begin, place - 1)) or 1) end
          product, numbers = product * number, numbers + 1
          if numbers == 1 then is_first_0 = number == 0 end
        end
        if is_end then return product, place - at, numbers > 1 and is_first_0 end
        begin, number, is_plain = place + 1, 0, true
      else
        is_plain = false
      end
    end
    place = place + 1
  end
end

-- The place behind blanks.
local function behind_blanks(text, at)
  while true do
    local part = byte(text, at)
    if part == nil or part ~= 32 and (part < 9 or part > 13) then return at end
    at = at + 1
  end
end

-- No byte is looked at more than a few times, however the lists are nested: others wait for this thread.
local function why_wrong(text, size)
  local at, lists = 1, 0
  while true do
    local from, to = find(text, 'hape"', at, true)  -- few bytes are an h, many a quote
    if from == nil then return nil end
    local place = behind_blanks(text, to + 1)
    if byte(text, place) == 58 and byte(text, from - 1) == 115 and byte(text, from - 2) == 34 then  -- a colon
      place = behind_blanks(text, place + 1)
      if byte(text, place) == 91 then
        local product, length, has_no_rows = elements(text, place + 1)
        lists = lists + 1
        if lists > MOST_LISTS or length > MOST_LIST then return LIES end
        if not (product <= size) then return LIES end  -- nor what is not comparable
        if has_no_rows then return NO_ROWS end
      end
    end
    at = to + 1
  end
end

-- Whether a bracket stands there more often than that.
local function has_more(text, bracket, most)
  local at = 0
  for _ = 0, most do
    at = find(text, bracket, at + 1, true)
    if at == nil then return false end
  end
  return true
end

-- Up to the first mistake in the JSON this counts as a parser does; what comes after, a parser does not reach.
local function is_deep(text)
  local at, depth, is_text = 0, 0, false
  while at < #text do
    at = at + 1
    local part = byte(text, at)
    if is_text then
      if part == 92 then at = at + 1 elseif part == 34 then is_text = false end  -- a backslash, a quote
    elseif part == 34 then
      is_text = true
    elseif part == 91 or part == 123 then  -- [ and {
      depth = depth + 1
      if depth > MOST_DEPTH then return true end
    elseif part == 93 or part == 125 then
      depth = depth - 1
    end
  end
  return false
end

-- Few brackets are counted faster than followed, and few bytes have few brackets.
local function may_be_deep(text)
  if #text <= MOST_DEPTH then return false end
  return has_more(text, "[", MOST_DEPTH / 2) or has_more(text, "{", MOST_DEPTH / 2)
end

local function why_refused(text, size, is_binary)
  if has_escaped_letter(text) then return LIES end
  return why_wrong(text, size) or not is_binary and may_be_deep(text) and is_deep(text) and DEEP or nil
end

-- Whether no beginning of a small body, whichever Triton takes for JSON, has anything wrong: where the whole has nothing.
local function is_right(body, size)
  if size > SMALL then return false end
  local is_read, why = pcall(why_refused, body:getBytes(0, size), size, false)
  return is_read and why == nil
end

function envoy_on_request(handle)
  local body = handle:body()
  if body == nil then return end
  local size = body:length()
  if is_right(body, size) then return end
  local claimed = handle:headers():get("inference-header-content-length")
  -- Anything but a plain number above 0: the whole body, of which whatever Triton reads is a part.
  local length = claimed ~= nil and find(claimed, "^%d+$") and math.min(tonumber(claimed), size) or 0
  if length == 0 then length = size end
  local text = body:getBytes(0, length)
  local is_read, why = pcall(why_refused, text, size, claimed == "0")  -- with which Triton reads no JSON
  if not is_read then why = LIES end  -- an error would let the request go on
  text = nil
  if length > LARGE then collectgarbage() end
  if why ~= nil then handle:respond({[":status"] = "400"}, why) end
end
