package redisstore

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// durability is what a server's answer survives.
type durability struct {
	fsync    string // of the append-only file: always, everysec, no; "off" without one; "unknown"
	replicas int64
	waits    bool // min-replicas-to-write is set
}

// durable reads the durability of a server. Not everybody may see its configuration.
func durable(ctx context.Context, c *redis.Client, info string) durability {
	d := durability{fsync: "off", replicas: integer(info, "connected_slaves"), waits: field(info, "min_slaves_good_slaves") != ""}
	if field(info, "aof_enabled") == "1" {
		d.fsync = "unknown"
		if config, err := c.ConfigGet(ctx, "appendfsync").Result(); err == nil && config["appendfsync"] != "" {
			d.fsync = config["appendfsync"]
		}
	}
	return d
}

var fsyncs = map[string]struct {
	rank int
	what string
}{
	"always":   {4, "a crash of the machine loses nothing"},
	"everysec": {3, "a crash of the machine loses up to two seconds"},
	"no":       {2, "a crash of the machine loses what the system had not written yet"},
	"unknown":  {1, "what a crash of the machine loses is not known"},
	"off":      {0, "a crash of the server loses everything since the last snapshot"},
}

// less reports whether d survives less than other.
func (d durability) less(other durability) bool {
	return fsyncs[d.fsync].rank < fsyncs[other.fsync].rank
}

func (d durability) String() string {
	text := fmt.Sprintf("appendfsync=%s replicas=%d: %s", d.fsync, d.replicas, fsyncs[d.fsync].what)
	switch {
	case d.replicas > 0 && d.waits:
		text += ", a failover what was not replicated yet"
	case d.replicas > 0:
		text += ", a failover what was not replicated yet, and a master that is cut off goes on answering (set min-replicas-to-write)"
	}
	return text + "; Since is raised then"
}

// integer returns a number that INFO tells; 0 if it does not.
func integer(info, name string) int64 {
	n, _ := strconv.ParseInt(field(info, name), 10, 64)
	return n
}
