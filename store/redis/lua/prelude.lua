-- What every script begins with: the server's time, and numbers as bytes.
-- The layout of a record is in codec.go; positions here count from 1.
local time = redis.call('TIME')
local byte, char, sub, floor, format = string.byte, string.char, string.sub, math.floor, string.format
local us = time[1] * 1000000 + time[2]
local now = floor(us / 1000)

-- Big-endian numbers: 6 bytes for milliseconds, 7 for tokens. Doubles are exact
-- up to 2^53, and tokens are refused from there on.
local function low3(n)
  return floor(n / 65536) % 256, floor(n / 256) % 256, n % 256
end
local function bytes6(n)
  local low = n % 16777216
  local a, b, c = low3((n - low) / 16777216)
  return char(a, b, c, low3(low))
end
local function bytes7(n)
  local low = n % 16777216
  local high = (n - low) / 16777216
  local a, b, c = low3(high)
  return char(floor(high / 16777216), a, b, c, low3(low))
end
local function number6(s, at)
  local a, b, c, d, e, f = byte(s, at, at + 5)
  return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end
local function number7(s, at)
  return byte(s, at) * 281474976710656 + number6(s, at + 1)
end

-- deadline is when the server may drop a record: when it has expired, and never
-- before the clock has passed its token, so that the next token is greater.
local function deadline(expires, token)
  local passed = floor(token / 1000) + 1
  if passed > expires then expires = passed end
  return format('%.0f', expires)
end

local VERSION, NONE = '\1', '\0\0'
local CLAIMED, RELEASED, DONE, PARKED, AMBIGUOUS = 1, 2, 3, 4, 8

-- load returns the record of a key, its state and whether it is ambiguous; the
-- state of an expired one is 0. What is no record of ours is an error, which is
-- the answer to this operation alone.
local function load(key)
  local v = redis.pcall('GET', key)
  if not v then return nil, 0, 0 end
  if type(v) == 'table' then return nil, nil, v.err end
  if sub(v, 1, 1) ~= VERSION or #v < 23 then
    return nil, nil, 'RECORD ' .. format('%d', byte(v, 1) or 0)
  end
  local state = byte(v, 2)
  local ambiguous = floor(state / 8) % 2 * 8
  state = state % 8
  if state > 0 and number6(v, 10) <= now then state = 0 end
  return v, state, ambiguous
end

-- What a script returns: one byte for each key, and one string for each.
local status, record = {}, {}
