package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oncequeue/oncequeue/dedup"
)

// scope holds the metrics of one scope.
type scope struct {
	name string
	ttl  time.Duration

	messages                               *prometheus.CounterVec // by outcome
	outcomes                               map[dedup.Outcome]prometheus.Counter
	redelivery, republish, elsewhere       prometheus.Counter
	ambiguous, stale, leaseLost, storeErrs prometheus.Counter
	hung                                   prometheus.Gauge
	handler, store, batch, age             prometheus.Observer
	unfinished                             unfinished
}

// Hooks returns the hooks for dedup.Options. Each hook measures, and then calls the hook of the
// same name in next if that is not nil.
func (m *Metrics) Hooks(next dedup.Hooks) dedup.Hooks {
	return dedup.Hooks{
		Started: func(e dedup.Event) {
			m.unfinished.start(e.Message, e.Started)
			if next.Started != nil {
				next.Started(e)
			}
		},
		Decided: func(e dedup.Event) {
			m.decided(&e)
			if next.Decided != nil {
				next.Decided(e)
			}
		},
		Applied: func(ops int, took time.Duration, err error) {
			m.store.Observe(took.Seconds())
			m.batch.Observe(float64(ops))
			if err != nil {
				m.storeErrs.Inc()
			}
			if next.Applied != nil {
				next.Applied(ops, took, err)
			}
		},
		LeaseLost: func(e dedup.Event) {
			m.leaseLost.Inc()
			if next.LeaseLost != nil {
				next.LeaseLost(e)
			}
		},
		Hung: func(change int) {
			m.hung.Add(float64(change))
			if next.Hung != nil {
				next.Hung(change)
			}
		},
	}
}

func (s *scope) decided(e *dedup.Event) {
	r := &e.Result
	if c := s.outcomes[r.Outcome]; c != nil {
		c.Inc()
	} else { // such as that of a handler that ended its goroutine
		s.messages.WithLabelValues(r.Outcome.String()).Inc()
	}
	if r.Settled() {
		s.unfinished.end(e.Message)
	} else {
		s.unfinished.wait(e.Message, r.RetryAfter)
	}
	if e.Took > 0 {
		s.handler.Observe(e.Took.Seconds())
	}
	if r.Settled() || r.Halt {
		if e.Message.Claim.Ambiguous {
			s.ambiguous.Inc()
		}
		if e.Message.Claim.Stale {
			s.stale.Inc()
		}
	}
	if r.Outcome != dedup.Duplicate {
		return
	}
	switch p := e.Message.Position; {
	case r.First == p:
		s.redelivery.Inc()
	case r.First.Source == p.Source:
		s.republish.Inc()
	default:
		s.elsewhere.Inc()
	}
	if !e.FirstSeen.IsZero() {
		s.age.Observe(max(e.Started.Sub(e.FirstSeen), 0).Seconds()) // not negative: the times are of two clocks
	}
}
