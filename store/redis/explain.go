package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// explain says what to do about an error of a server.
func explain(err error, addr string) error {
	hint := ""
	switch {
	case err == nil:
		return nil
	case redis.IsAuthError(err):
		hint = "give the client the user's name and password"
	case redis.IsPermissionError(err):
		hint = "see the package documentation for what the user must be allowed"
	case redis.IsOOMError(err):
		hint = "the server's memory is full: new claims are refused until records expire or maxmemory is raised"
	case redis.IsReadOnlyError(err):
		hint = "the client is connected to a replica"
	case redis.HasErrorPrefix(err, "MISCONF"):
		hint = "the server cannot write to its disk"
	case redis.HasErrorPrefix(err, "ERR DB index is out of range"), redis.HasErrorPrefix(err, "DB index is out of range"):
		hint = "choose a database that the server has"
	case redis.HasErrorPrefix(err, "ERR Error compiling script"):
		hint = "its scripts need Redis 7: upgrade it"
	case misplaced(err):
		hint = "use a redis.ClusterClient for a Redis Cluster"
	case errors.Is(err, context.DeadlineExceeded):
		hint = "it does not answer in time"
	}
	if hint == "" {
		return fmt.Errorf("%s: %w", addr, err)
	}
	return fmt.Errorf("%s: %w: %s", addr, err, hint)
}

// refused says why a script did not touch a record.
func refused(why string) error {
	if v, ok := strings.CutPrefix(why, "RECORD "); ok {
		return fmt.Errorf("it is of version %s of the format, and this program knows %d: upgrade the program, or, if another program wrote it, give the store a Prefix of its own", v, formatVersion)
	}
	if strings.HasPrefix(why, "WRONGTYPE") {
		return errors.New("its key holds another type of value, written by another program: give the store a Prefix of its own")
	}
	return errors.New(why)
}
