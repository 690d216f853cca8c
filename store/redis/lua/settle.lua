-- Carries out ARGV[i] on KEYS[i]: kind (1 byte), TTL (6, ms), what the record would
-- begin with, which is version (1), state (1) and token (7), and
--   X extend:  lease (6, ms), note, if there is another than before
--   S settle:  TAGGED or 0 (1), where the result begins, from 1 (2), fingerprint (8),
--              its tag (4) if it is TAGGED, position, result
--   R release: whether it is ambiguous (1), how many attempts it counts (1)
--   U unpark:  nothing; the token is the least one
local SETTLE, RELEASE, UNPARK = 83, 82, 85
local terms, expires, expires6, life

-- behind returns where a position in s ends.
local function behind(s, at)
  local function skip()
    local n, scale, b = 0, 1, 0
    repeat
      b = byte(s, at) or 0
      n, scale, at = n + b % 128 * scale, scale * 128, at + 1
    until b < 128
    return n
  end
  local n = skip()
  if n == 1 then at = at + 3 elseif n > 1 then at = at + n - 1 end
  skip()
  skip()
  return at
end

for i = 1, #KEYS do
  local key, op = KEYS[i], ARGV[i]
  local kind = byte(op, 1)
  local mine = sub(op, 2, 7)
  if mine ~= terms then
    terms, expires = mine, now + number6(op, 2)
    expires6, life = bytes6(expires), lifetime(expires, 0)
  end
  local v = redis.pcall('GET', key)
  local state, ambiguous = parse(v)
  local ours = state and state ~= FREE and sub(v, 3, 9) == sub(op, 10, 16)
  local token = number7(op, 10)
  local ends = token < expires * 1000 and life or lifetime(expires, token)
  status[i], record[i] = 'L', state ~= FREE and v or ''
  if state == nil then
    status[i], record[i] = 'E', ambiguous
  elseif kind == SETTLE then
    local head, rest
    local result = byte(op, 18) * 256 + byte(op, 19)
    if state == FREE then
      head = VERSION .. char(byte(op, 9) + byte(op, 17)) .. sub(op, 10, 16)
      rest = bytes6(now) .. NONE .. sub(op, 20, result - 1)
    elseif ours and (state == CLAIMED or state == RELEASED) then
      local _, at = 0, 32
      if state == CLAIMED then _, at = claimed(v) end
      rest = sub(v, 16, 23) .. sub(v, at)
      local flags = byte(op, 9)
      -- A park keeps that the record is ambiguous.
      if flags % 8 == PARKED and flags % 16 < AMBIGUOUS then flags = flags + ambiguous end
      head = VERSION .. char(flags + (tag(v, at) ~= '' and TAGGED or 0)) .. sub(op, 10, 16)
    elseif ours then -- a retry: the first answer stands
      status[i] = 'O'
    end
    if rest then
      head = head .. expires6 .. rest
      redis.call('SET', key, head .. sub(op, result), 'PX', ends)
      status[i], record[i] = 'S', head -- the caller has the result
    end
  elseif kind == UNPARK then
    if state == CLAIMED then
      status[i] = 'H'
    elseif state == DONE then
      status[i] = 'D'
    else
      status[i] = 'O'
      if state == PARKED then
        token = math.max(us, token, number7(v, 3) + 1)
        local tags = tag(v, 24)
        v = VERSION .. char(RELEASED + ambiguous + (tags ~= '' and TAGGED or 0)) .. bytes7(token) .. expires6 .. sub(v, 16, 21)
          .. NONE .. '\0\0\0\0\0\0\0\0' .. sub(v, 24, behind(v, 32 + #tags) - 1)
        redis.call('SET', key, v, 'PX', lifetime(expires, token))
        record[i] = v
      end
    end
  elseif ours and state == CLAIMED and kind == RELEASE then
    local _, at = claimed(v)
    if byte(op, 17) > 0 then ambiguous = AMBIGUOUS end
    local attempt = math.min(byte(v, 22) * 256 + byte(v, 23) + byte(op, 18), 65535)
    v = VERSION .. char(RELEASED + ambiguous + (tag(v, at) ~= '' and TAGGED or 0)) .. sub(v, 3, 9) .. expires6 .. sub(v, 16, 21)
      .. char(floor(attempt / 256), attempt % 256) .. sub(v, 30, 37) .. sub(v, at)
    redis.call('SET', key, v, 'PX', ends)
    status[i], record[i] = 'O', v
  elseif ours and state == CLAIMED and number6(v, 24) > now then
    local ending = now + number6(op, 17)
    local last = ending + number6(op, 2)
    local note = sub(op, 23)
    local rest = sub(v, 38)
    if note ~= '' then
      local noteAt, at, place = claimed(v)
      -- The holder of a claim of an older version is unknown: the empty position.
      local held = place and sub(v, 42, noteAt - 1) or '\0\0\0'
      rest = char(floor(#held / 256), #held % 256, floor(#note / 256), #note % 256) .. held .. note .. sub(v, at)
    end
    v = (note ~= '' and VERSION or sub(v, 1, 1)) .. sub(v, 2, 9) .. bytes6(last) .. sub(v, 16, 23) .. bytes6(ending) .. sub(v, 30, 37) .. rest
    redis.call('SET', key, v, 'PX', lifetime(last, token))
    status[i], record[i] = 'O', v
  end
end
