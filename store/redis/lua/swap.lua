-- Replaces what KEYS[1] holds, ARGV[1], by ARGV[2], and for ever; '' stands for no
-- such key. If it holds something else, it returns that.
local v = redis.call('GET', KEYS[1]) or ''
if v == ARGV[1] then
  v = ARGV[2]
  redis.call('SET', KEYS[1], v)
end
status[1], record[1] = 'O', v
