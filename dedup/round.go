package dedup

import (
	"context"
	"errors"
	"fmt"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/internal/mark"
)

// DoRound is [Deduplicator.DoBatch] in two phases, for a transport that settles many
// messages in one transaction. It takes at most [driver.MaxBatch] messages of ms, and
// returns one Result for each that it took. Call it again with the rest.
//
// First DoRound claims the keys. Then it calls h once, also if no message is to run, with a
// [Round] that tells how each message stands. h does its work, and answers for the messages
// by methods of the Round. After that, DoRound records the answers: it completes the keys,
// parks them or gives them back.
//
// A message to run without an answer is given back: its Outcome is [Unavailable], or Busy
// if a lease was lost, and the attempt does not count. If the context of h has ended by
// then, the next claim is flagged Ambiguous, because the work may be half done.
// [Round.GiveBack] says that nothing was done. A message to park without an answer is
// parked by Options.DeadLetter after h, unless the context of h has ended: then it is given
// back. Options.DeadLetter is called also for a message whose failure, told by [Round.Fail],
// was Permanent or its last attempt.
//
// h is not called if ctx has ended, the Deduplicator is shut down or a lease was lost before;
// the messages to run or to park are then [Unavailable] or [Busy], and no dead letter is
// sent. If h panics, its answers do not count and no dead letter is sent: the messages to
// run have [Failed] and come again flagged Ambiguous, those to park are Unavailable. If h
// ends its goroutine, the claims lapse, and cost an attempt each.
//
// DoRound never waits for a key, so two rounds cannot wait for each other. A message is Busy
// if its key is being processed elsewhere, or occurs earlier in the round with another
// payload. It does wait for a slot of Options.Concurrency. While the other handlers are slow,
// it may give its claims back and claim again, so h sees the standings of the last claims.
//
// All of a round takes one slot, one context and one HandlerTimeout. The claims are renewed
// until DoRound returns, but after HandlerTimeout only once h has returned. A crash until
// then costs each claimed key an attempt, and flags it Ambiguous. The end of ctx does not
// end the recording: DoRound may return much later, while the store does not answer. One
// lost lease ends the context of h. Answers for the other messages count all the same.
//
// # Commit of offsets in the transaction
//
// h may commit the positions of these messages in its transaction:
//
//   - StandingSettled.
//   - StandingRun that h completes, and StandingRun or StandingPark that h parks, once the
//     same transaction has the work or the dead letter.
//   - StandingFollow, if h commits its leader.
//
// h must not commit a message with StandingWait, or one that h fails, gives back or leaves
// without an answer. A broker that commits offsets must not commit past such a message. A
// Standing with Halt ends what may be committed: nothing behind that message is.
//
// The transaction is not part of the record. If the process dies between the two, or the
// Result is [Uncertain], then the position is committed and the key may not be completed.
// The broker does not deliver that message again, and DoRound does not complete the key
// later. A copy of the message runs again, flagged Ambiguous. The transport must keep notes
// of its own in the transaction, and look for them, if that copy must not have its effect
// twice.
func (t Transport) DoRound(ctx context.Context, ms []*Message, h RoundHandler) []Result {
	ms = ms[:min(len(ms), driver.MaxBatch)]
	results := make([]Result, len(ms))
	of := call{}
	t.d.doBatch(ctx, ms, results, &of, func(d *Deduplicator, ctx context.Context, slab []delivery, _ *call) {
		r := &Round{slab: slab, replies: make([]reply, len(slab))}
		of.many = func(ctx context.Context, _ []*Message) []Answer { return r.run(ctx, h) }
		d.processRound(ctx, slab, &of, r.spare)
	})
	return results
}

// RoundHandler does the work of one round. ctx ends when the lease of any one of the
// messages is lost, at HandlerTimeout, with the caller's context, and at the deadline of
// Shutdown.
//
// The Claim of each message to run is filled in, and so is that of a message to park if its
// key was claimed. [ClaimFrom] finds no claim in ctx.
type RoundHandler func(ctx context.Context, r *Round)

// Round is the messages of one call of [Transport.DoRound], by their index in it. It
// belongs to the goroutine of the [RoundHandler], until that returns. A [Standing] may be
// kept longer, and the bytes of its Result belong to the caller. A result given to Complete
// stays as it is until DoRound returns.
//
// Of two answers for a message the last one counts. An answer that is not for the standing
// of the message is ignored, as if it had not been given.
type Round struct {
	slab    []delivery
	replies []reply
	leaders map[*delivery]int

	returned bool  // the handler has
	panicked error // not nil: the handler has
}

// reply is what the handler answered for a message.
type reply struct {
	kind   replyKind
	result []byte
	err    error
}

type replyKind uint8

const (
	silent replyKind = iota
	givenBack
	completed
	parked
	failing
)

// StandingKind says what a [RoundHandler] is to do with a message.
type StandingKind uint8

const (
	// StandingRun means that the key is claimed, or that the message has none and runs
	// all the same: do the work, and answer.
	StandingRun StandingKind = iota + 1
	// StandingPark means that the message is to be parked. Write its dead letter and call
	// [Round.Park], or decline by [Round.GiveBack] or [Round.Fail]. Without an answer,
	// Options.DeadLetter is called once the handler has returned.
	StandingPark
	// StandingFollow means that the message has the key and the payload of an earlier one
	// of the round, Standing.Leader. It gets the Result of that one, but as
	// Duplicate for Processed and AlreadyParked for Parked.
	StandingFollow
	// StandingSettled means that nothing is left to do, as Standing.Result says.
	StandingSettled
	// StandingWait means that the message cannot be settled in this round: Standing.Result
	// says why, if that is known. If its Outcome is zero, the key is in work elsewhere in
	// this process, or occurs earlier in the round with another payload. The final Result may still be settled, as a Duplicate of a run
	// elsewhere. If Standing.Result has Halt, nothing behind the message may be started.
	StandingWait
)

// Standing tells how a message stands once the keys are claimed. DoRound does not stop at a
// Result with Halt: the handler looks at the standings of the earlier messages before it
// does the work for a message that must not overtake them.
type Standing struct {
	Kind   StandingKind
	Leader int    // StandingFollow: the index of that message
	Result Result // StandingSettled, StandingWait: as known so far; StandingPark: Err says why
}

// At returns the standing of message i.
func (r *Round) At(i int) Standing {
	switch x := &r.slab[i]; {
	case x.leader != nil:
		return Standing{Kind: StandingFollow, Leader: r.leader(x.leader)}
	case x.run:
		return Standing{Kind: StandingRun}
	case x.park != nil && !x.over:
		return Standing{Kind: StandingPark, Result: Result{Err: x.park, ID: x.id}}
	case x.res.settled:
		return Standing{Kind: StandingSettled, Result: *x.res}
	default:
		return Standing{Kind: StandingWait, Result: *x.res}
	}
}

func (r *Round) leader(x *delivery) int {
	if r.leaders == nil {
		r.leaders = make(map[*delivery]int, len(r.slab))
		for i := range r.slab {
			r.leaders[&r.slab[i]] = i
		}
	}
	return r.leaders[x]
}

// Complete answers that the work for message i is done. It is for StandingRun.
func (r *Round) Complete(i int, result []byte) { r.replies[i] = reply{kind: completed, result: result} }

// Park answers that the dead letter of message i is confirmed to be durable. It is for
// StandingPark and StandingRun, and needs no Options.DeadLetter.
func (r *Round) Park(i int, why error) {
	r.replies[i] = reply{kind: parked, err: given(mark.Finite(why))}
}

// Fail answers that the work for message i failed. err has the marks that a [Handler] can
// give. For StandingPark, it answers that the dead letter failed: err counts as an error of
// Options.DeadLetter.
func (r *Round) Fail(i int, err error) { r.replies[i] = reply{kind: failing, err: given(err)} }

// GiveBack answers that nothing was done for message i. The message is [Unavailable], the
// attempt does not count, and the next claim is no more ambiguous than this one, even if ctx
// has ended. It is for StandingRun and StandingPark.
func (r *Round) GiveBack(i int) { r.replies[i] = reply{kind: givenBack} }

// Len returns the number of messages.
func (r *Round) Len() int { return len(r.slab) }

var (
	errNoReason  = errors.New("no reason is given")
	errGivenBack = errors.New("the handler of the round gave the message back")
	errNoAnswer  = errors.New("the handler of the round gave no answer for the message")
)

func given(err error) error {
	if err == nil {
		return errNoReason
	}
	return err
}

// run calls h, and returns its answers for the messages that were to run.
func (r *Round) run(ctx context.Context, h RoundHandler) (answers []Answer) {
	defer func() {
		if e := recover(); e != nil {
			r.panicked = panicError(e)
			panic(e)
		}
	}()
	h(ctx, r)
	r.returned = true
	why := context.Cause(ctx)
	for i := range r.slab {
		switch x, a := &r.slab[i], &r.replies[i]; {
		case x.run:
			answers = append(answers, x.answered(a, why))
		case x.park != nil && !x.over:
			x.answeredPark(a, why)
		}
	}
	return answers
}

// answered takes the handler's answer for x, which was to run. why is why the context of
// the handler had ended, or nil.
func (x *delivery) answered(a *reply, why error) Answer {
	switch a.kind {
	case completed:
		return Answer{Result: a.result}
	case parked:
		x.buried = true
	case givenBack:
		x.back, x.clean = errGivenBack, true
	case silent:
		x.back = noAnswer(why)
	case failing:
	}
	return Answer{Err: a.err}
}

// answeredPark takes the handler's answer for x, which was to be parked.
func (x *delivery) answeredPark(a *reply, why error) {
	switch {
	case a.kind == parked:
		x.buried, x.park = true, a.err
	case a.kind == failing:
		s := mark.Of(a.err)
		x.unburied(mark.Finite(a.err))
		if x.park = nil; s.HasAfter {
			x.res.RetryAfter = s.After
		}
	case a.kind == givenBack:
		x.giveUp(errGivenBack)
	case why != nil:
		x.giveUp(noAnswer(why))
	}
}

func noAnswer(why error) error {
	if why == nil {
		return errNoAnswer
	}
	return fmt.Errorf("%w: %w", why, errNoAnswer)
}

// spare keeps dead letters from being sent for xs, unless the handler has returned. why is
// why it was not called, if it was not.
func (r *Round) spare(xs []*delivery, why error) {
	if r.panicked != nil {
		why = r.panicked
	}
	for _, x := range xs {
		switch {
		case r.returned || x.park == nil:
		case x.run: // its attempts are used up: the next round is to park it
			x.park = nil
		default:
			x.giveUp(why)
		}
	}
}
