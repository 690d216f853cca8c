package metrics

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oncequeue/oncequeue/dedup"
)

// Options configure [Metrics]. A nil *Options, and each zero field, means the default.
type Options struct {
	// TTL must be equal to dedup.Options.TTL. It is needed for
	// dedup_window_headroom_seconds. Default 24h, the default of dedup.Options too.
	TTL time.Duration
}

// Metrics are the metrics of one scope. They stay registered as long as the registry lives.
type Metrics struct{ *scope }

// New registers the metrics of a scope with reg. Several Deduplicators of the scope may share one
// Metrics. A second call of New with the same reg and scope returns the same metrics. It returns
// an error if its TTL differs. o may be nil.
func New(reg prometheus.Registerer, scope string, o *Options) (*Metrics, error) {
	ttl := 24 * time.Hour
	if o != nil && o.TTL != 0 {
		ttl = o.TTL
	}
	switch {
	case reg == nil:
		return nil, errNoRegistry
	case scope == "":
		return nil, errNoScope
	case ttl < 0:
		return nil, fmt.Errorf("metrics: TTL %v is negative", ttl)
	}
	f, err := shared(reg, newFamilies())
	if err != nil {
		return nil, err
	}
	s, err := f.scope(scope, ttl)
	if err != nil {
		return nil, err
	}
	return &Metrics{s}, nil
}

var (
	errNoRegistry = errors.New("metrics: no Registerer; pass one, such as prometheus.NewRegistry()")
	errNoScope    = errors.New("metrics: no scope; pass that of the Deduplicator")
)

// shared registers c. If a collector of its kind is registered already, shared returns that
// one: a registry has one collector of each kind, for all scopes.
func shared[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	err := reg.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("metrics: register: %w", err)
	}
	return c, nil
}

// labelScope is the label that every metric has.
const labelScope = "scope"

// families are the metrics of all scopes of a registry.
type families struct {
	messages, duplicates                   *prometheus.CounterVec
	ambiguous, stale, leaseLost, storeErrs *prometheus.CounterVec
	hung                                   *prometheus.GaugeVec
	handler, store, batch, age             *prometheus.HistogramVec
	inFlight, headroom                     *prometheus.Desc

	mu     sync.Mutex
	scopes map[string]*scope
}

func newFamilies() *families {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{labelScope}, labels...))
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, []string{labelScope})
	}
	const minute, hour = 60, 3600
	return &families{
		scopes:     make(map[string]*scope),
		messages:   counter("dedup_messages_total", "Deliveries, by what became of them.", "outcome"),
		duplicates: counter("dedup_duplicates_total", "Deliveries answered from a record, by where the duplicate came from.", "cause"),
		ambiguous:  counter("dedup_ambiguous_total", "Messages settled, or halted at, whose earlier run may have had its effect."),
		stale:      counter("dedup_stale_total", "Messages settled, or halted at, that are older than the memory of the store."),
		leaseLost:  counter("dedup_lease_lost_total", "Handlers that lost their claim while they ran."),
		hung: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "dedup_handlers_hung", Help: "Handlers that have outlived HandlerTimeout and their lease, and have not returned.",
		}, []string{labelScope}),
		storeErrs: counter("dedup_store_errors_total", "Calls of the store that answered no operation."),
		handler: histogram("dedup_handler_seconds", "How long the handler ran.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, minute, 5 * minute, 10 * minute}),
		store: histogram("dedup_store_seconds", "How long each call of the store took.",
			[]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}),
		batch: histogram("dedup_store_batch_ops", "Operations in each call of the store.",
			prometheus.ExponentialBuckets(1, 2, 13)), // to driver.MaxBatch
		age: histogram("dedup_duplicate_age_seconds", "How long after the first sight of its key a duplicate came.",
			[]float64{1, 10, minute, 5 * minute, 15 * minute, hour, 3 * hour, 6 * hour, 12 * hour, 24 * hour, 48 * hour, 7 * 24 * hour}),
		inFlight: prometheus.NewDesc("dedup_in_flight", "Deliveries that are being processed.", []string{labelScope}, nil),
		headroom: prometheus.NewDesc("dedup_window_headroom_seconds", "The TTL minus the age of the oldest unfinished message.", []string{labelScope}, nil),
	}
}

func (f *families) vectors() []prometheus.Collector {
	return []prometheus.Collector{f.messages, f.duplicates, f.ambiguous, f.stale, f.leaseLost, f.hung, f.storeErrs, f.handler, f.store, f.batch, f.age}
}

// Describe implements prometheus.Collector.
func (f *families) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range f.vectors() {
		v.Describe(ch)
	}
	ch <- f.inFlight
	ch <- f.headroom
}

// Collect implements prometheus.Collector.
func (f *families) Collect(ch chan<- prometheus.Metric) {
	for _, v := range f.vectors() {
		v.Collect(ch)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, s := range f.scopes {
		count, oldest := s.unfinished.look(now)
		headroom := s.ttl
		if !oldest.IsZero() {
			headroom -= max(now.Sub(oldest), 0)
		}
		ch <- prometheus.MustNewConstMetric(f.inFlight, prometheus.GaugeValue, float64(count), s.name)
		ch <- prometheus.MustNewConstMetric(f.headroom, prometheus.GaugeValue, headroom.Seconds(), s.name)
	}
}

// scope returns the metrics of the scope. It makes them if there are none.
func (f *families) scope(name string, ttl time.Duration) (*scope, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.scopes[name]; s != nil {
		if s.ttl != ttl {
			return nil, fmt.Errorf("metrics: scope %q is registered with TTL %v, not %v; use one TTL, or another scope", name, s.ttl, ttl)
		}
		return s, nil
	}
	if _, err := f.stale.GetMetricWithLabelValues(name); err != nil {
		return nil, fmt.Errorf("metrics: scope %q cannot be a label: %w", name, err)
	}
	s := &scope{
		name: name, ttl: ttl,
		outcomes:   make(map[dedup.Outcome]prometheus.Counter),
		messages:   f.messages.MustCurryWith(prometheus.Labels{labelScope: name}),
		redelivery: f.duplicates.WithLabelValues(name, "redelivery"),
		republish:  f.duplicates.WithLabelValues(name, "republish"),
		elsewhere:  f.duplicates.WithLabelValues(name, "other_source"),
		ambiguous:  f.ambiguous.WithLabelValues(name),
		stale:      f.stale.WithLabelValues(name),
		leaseLost:  f.leaseLost.WithLabelValues(name),
		hung:       f.hung.WithLabelValues(name),
		storeErrs:  f.storeErrs.WithLabelValues(name),
		handler:    f.handler.WithLabelValues(name),
		store:      f.store.WithLabelValues(name),
		batch:      f.batch.WithLabelValues(name),
		age:        f.age.WithLabelValues(name),
	}
	s.unfinished.init()
	// The counters of all outcomes exist from the start, at 0. Otherwise the first increment
	// would not appear in a rate.
	for o := dedup.Processed; o <= dedup.AlreadyParked; o++ {
		s.outcomes[o] = s.messages.WithLabelValues(o.String())
	}
	f.scopes[name] = s
	return s, nil
}
