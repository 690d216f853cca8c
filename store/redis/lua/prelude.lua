-- What every script begins with: the server's time, and numbers as bytes.
-- The layout of a record is in codec.go; positions here count from 1.
local time = redis.call('TIME')
local byte, char, sub, floor = string.byte, string.char, string.sub, math.floor
local us = time[1] * 1000000 + time[2]
local now = floor(us / 1000)

-- Big-endian numbers: 6 bytes for milliseconds, 7 for tokens. Doubles are exact
-- up to 2^53, and tokens are refused from there on.
local function bytes6(n)
  local low = n % 16777216
  local high = (n - low) / 16777216
  return char(floor(high / 65536), floor(high / 256) % 256, high % 256, floor(low / 65536), floor(low / 256) % 256, low % 256)
end
local function bytes7(n)
  local low = n % 281474976710656
  return char((n - low) / 281474976710656) .. bytes6(low)
end
local function number6(s, at)
  local a, b, c, d, e, f = byte(s, at, at + 5)
  return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end
local function number7(s, at)
  return byte(s, at) * 281474976710656 + number6(s, at + 1)
end

-- lifetime is for how long the server keeps a record: until it has expired, and
-- not before the clock has passed its token, so that the next token is greater. It is
-- 285 years at most: a server that counts in nanoseconds could not tell more.
local LONGEST = 9000000000000
local function lifetime(expires, token)
  local passed = floor(token / 1000) + 1
  return string.format('%.0f', math.min(math.max(expires, passed, now + 1) - now, LONGEST))
end

-- SET takes the lifetime by PX, never PXAT: then what goes to replicas and to the
-- append-only file is free of NX and GET.
local VERSION, NONE = '\2', '\0\0'
local FREE, CLAIMED, RELEASED, DONE, PARKED, AMBIGUOUS, TAGGED = 0, 1, 2, 3, 4, 8, 32

-- parse returns the state of what a key holds, and whether it is ambiguous. That of
-- an expired record is FREE. For what is no record of ours there is no state, and
-- why: that is the answer to this operation alone.
local function parse(v)
  if not v then return FREE, 0 end
  if type(v) == 'table' then return nil, v.err end
  local version, state = byte(v, 1, 2)
  if (version ~= 1 and version ~= 2) or #v < 23 then return nil, 'RECORD ' .. (version or 0) end
  local ambiguous = floor(state / 8) % 2 * 8
  state = state % 8
  if number6(v, 10) <= now then state = FREE end
  return state, ambiguous
end

-- claimed returns where the note of a claimed record begins, where its fingerprint
-- does, and whether the version of the record has a place for a note.
local function claimed(v)
  if byte(v, 1) == 1 then return 38, 38, false end
  local note = 42 + byte(v, 38) * 256 + byte(v, 39)
  return note, note + byte(v, 40) * 256 + byte(v, 41), true
end

-- tag returns the tag behind the fingerprint at a place in a record.
local function tag(v, at)
  return floor(byte(v, 2) / TAGGED) % 2 == 1 and sub(v, at + 8, at + 11) or ''
end

-- What a script returns: one byte for each key, and one string for each.
local status, record = {}, {}
