package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
)

// The metrics of each round. Values are per message, except Rate and Syncs.
const (
	Rate        = "msg/s"
	CPU         = "CPU µs"        // user and system, of this process
	ServerCPU   = "server CPU µs" // of the processes named with Server
	Allocs      = "allocs"
	AllocBytes  = "alloc B"
	DeviceBytes = "disk B" // written to the device of Dir by all processes
	Syncs       = "fsyncs/1k"
)

// Round is one round of one contender.
type Round struct {
	Number   int    // 0 is the warm-up: a tenth of the messages, and no figure is kept
	Messages int    // to be done between Start and Stop
	Dir      string // of this contender alone; empty in the warm-up, and kept between rounds

	servers []int
	during  during
	began   reading
	ended   reading
	own     map[string]float64
	err     error
}

// during is done while the clock runs, in rounds that are not measured.
type during interface {
	start(servers []int) error
	stop() error
}

// Server says that the process takes part in the work. Call it before Start.
func (r *Round) Server(pid int) { r.servers = append(r.servers, pid) }

// Start starts the clock.
func (r *Round) Start() {
	runtime.GC()
	if r.during != nil {
		r.err = r.during.start(r.servers)
	}
	r.began = read(r.servers, r.Dir)
}

// Stop stops the clock.
func (r *Round) Stop() {
	r.ended = read(r.servers, "")
	if r.during != nil && r.err == nil {
		r.err = r.during.stop()
	}
}

// Count writes down a count of the contender's own; the table has it per message.
func (r *Round) Count(metric string, total float64) { r.Set(metric, total/float64(r.Messages)) }

// Set writes down a value of the contender's own as it is: Rate too, if the
// contender knows better.
func (r *Round) Set(metric string, value float64) { r.own[metric] = value }

// run does one round and returns its values.
func (c *Contender) run(ctx context.Context, dir string, number, messages int, d during) (map[string]float64, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	r := &Round{Number: number, Messages: messages, Dir: dir, during: d, own: make(map[string]float64)}
	err := c.Round(ctx, r)
	switch {
	case err == nil && r.err != nil:
		err = r.err
	case err == nil && (r.began.at.IsZero() || r.ended.at.IsZero()):
		err = errors.New("it did not call Start and Stop")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	written := DeviceBytesWritten(dir) - r.began.device
	n := float64(messages)
	took := r.ended.at.Sub(r.began.at)
	values := r.own
	if _, told := values[Rate]; !told {
		values[Rate] = n / took.Seconds()
	}
	values[CPU] = micros(r.ended.cpu-r.began.cpu) / n
	values[Allocs] = float64(r.ended.mallocs-r.began.mallocs) / n
	values[AllocBytes] = float64(r.ended.allocated-r.began.allocated) / n
	values[DeviceBytes] = written / n
	if len(r.servers) > 0 {
		values[ServerCPU] = micros(r.ended.serverCPU-r.began.serverCPU) / n
	}
	return values, nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
