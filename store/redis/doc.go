// Package redisstore keeps the records of a Deduplicator on Redis 7 or later: one
// server, one found by way of Sentinel, or a Redis Cluster. Many processes share
// it.
package redisstore
