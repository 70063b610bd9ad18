-- Says what became of a message.
--
-- KEYS: outbox, messages. ARGV: its id; when it is due again, or nothing where it is settled.
if ARGV[2] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[1], 'XX', ARGV[2], ARGV[1])
end
return 1
