-- Replaces what KEYS[1] holds, and for ever: ARGV[1] is the length of what is to be
-- replaced, a colon, that, and what comes in its place. Nothing stands for no such
-- key. It returns what the key holds then; without an ARGV[1], nothing changes.
local v = redis.call('GET', KEYS[1]) or ''
local size, at = string.match(ARGV[1], '^(%d+):()')
if size and sub(ARGV[1], at, at + size - 1) == v then
  v = sub(ARGV[1], at + size)
  redis.call('SET', KEYS[1], v)
end
status[1], record[1] = 'O', v
