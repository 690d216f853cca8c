package storetest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/storetest"
)

func TestReference(t *testing.T)        { run(t, "") }
func TestReferenceDurable(t *testing.T) { runDurable(t, "") }

func run(t *testing.T, fault string) {
	storetest.Run(t, func(t *testing.T, clock storetest.Clock) driver.Store {
		return openReference(t, t.TempDir(), clock, fault)
	})
}

func runDurable(t *testing.T, fault string) {
	storetest.RunDurable(t, func(t *testing.T, dir string, clock storetest.Clock) driver.Store {
		return openReference(t, dir, clock, fault)
	})
}

// faultVariable names the fault of the store that TestFaulty and
// TestFaultyDurable run, in the processes that TestFaultsAreFound starts. Without
// it they do nothing.
const faultVariable = "STORETEST_FAULT"

func TestFaulty(t *testing.T)        { runFaulty(t, run) }
func TestFaultyDurable(t *testing.T) { runFaulty(t, runDurable) }

func runFaulty(t *testing.T, run func(*testing.T, string)) {
	if fault := os.Getenv(faultVariable); fault != "" {
		run(t, fault)
	}
}

// TestFaultsAreFound runs the suite, in a process of its own, over stores that
// each break one rule, and wants the rule's test to fail.
func TestFaultsAreFound(t *testing.T) {
	for _, c := range []struct{ fault, by string }{
		{"release forgets ambiguous", "TestFaulty/release/ambiguous_is_sticky"},
		{"repeated claim prolongs", "TestFaulty/claim/same_nonce"},
		{"duplicate prolongs", "TestFaulty/expiry/asking_does_not_prolong"},
		{"retried complete overwrites", "TestFaulty/complete/retried"},
		{"leases by milliseconds past", "TestFaulty/claim/ended_lease"},
		{"slow clock", "TestFaulty/expiry/done"},
		{"53-bit nonces", "TestFaulty/apply/values_survive"},
		{"tokens of a record", "TestFaulty/token/grow_across"},
		{"tokens count from one", "TestFaulty/token/not_below_the_clock"},
		{"no floor", "TestFaulty/token/above_the_floor"},
		{"deaf to the context", "TestFaulty/apply/ended_context"},
		{"empty batch", "TestFaulty/apply/empty_batch"},
		{"last op first", "TestFaulty/apply/ops_on_one_key"},
		{"stops at the first refusal", "TestFaulty/apply/ops_are_independent"},
		{"replies after the batch", "TestFaulty/apply/replies_show"},
		{"keeps what it is given", "TestFaulty/apply/does_not_keep_ops"},
		{"gives away what it keeps", "TestFaulty/apply/results_belong"},
		{"keeps what it is given", "TestFaulty/note/belongs"},
		{"gives away what it keeps", "TestFaulty/note/belongs"},
		{"takes a note over", "TestFaulty/note/never_taken_over"},
		{"takes a note over", "TestFaulty/model"},
		{"drops notes of extends", "TestFaulty/note/written_and_replaced"},
		{"compares all fingerprints", "TestFaulty/claim/fingerprints_with_different_tags"},
		{"forgets who holds", "TestFaulty/claim/held_names"},
		{"park forgets ambiguous", "TestFaulty/park/ambiguous_is_kept"},
		{"unparks under the old token", "TestFaulty/unpark/a_late_word"},
		{"unpark keeps attempts", "TestFaulty/unpark/parked"},
		{"restless vouch", "TestFaulty/vouch/stable"},
		{"deaf to the TTL", "TestFaulty/vouch/longer_TTL_raises"},
		{"TTL of claims alone", "TestFaulty/vouch/longer_TTL_raises"},
		{"TTL of the last op", "TestFaulty/vouch/longer_TTL_raises"},
		{"raised once", "TestFaulty/vouch/longer_TTL_raises"},
		{"shows the expired", "TestFaulty/inspector/lookup"},
		{"miscounts", "TestFaulty/inspector/stats"},
		{"forgets the living", "TestFaulty/inspector/forget_refuses"},
		{"forgets the lapsed", "TestFaulty/inspector/forget_refuses"},
		{"forgets the ambiguous", "TestFaulty/inspector/forget_refuses"},
		{"forces a note", "TestFaulty/inspector/forget_refuses"},
		{"forgets up to the refused", "TestFaulty/inspector/forget_refuses"},
		{"not atomic", "TestFaulty/linearizable"},
		{"release forgets ambiguous", "TestFaulty/model"},
		{"duplicate prolongs", "TestFaulty/model"},
		{"tokens of a record", "TestFaulty/model"},

		{"wall clock", "TestFaultyDurable/a_wall_clock"},
		{"new identity", "TestFaultyDurable/vouch"},
		{"lost TTL", "TestFaultyDurable/longer_TTL_raises"},
		{"lost longer TTL", "TestFaultyDurable/longer_TTL_raises"},
		{"lost high-water mark", "TestFaultyDurable/tokens_grow"},
		{"lost attempts", "TestFaultyDurable/released_stays"},
		{"lost notes", "TestFaultyDurable/a_note_stays"},
		{"leases outlive their process", "TestFaultyDurable/one_process"},
		{"orphans released", "TestFaultyDurable/one_process"},
		{"open when closed", "TestFaultyDurable/a_closed_store"},
		{"lost attempts", "TestFaultyDurable/model"},
		{"orphans released", "TestFaultyDurable/model"},
	} {
		t.Run(c.fault+" by "+c.by, func(t *testing.T) {
			t.Parallel()
			path := strings.Split(c.by, "/")
			cmd := exec.CommandContext(t.Context(), os.Args[0],
				"-test.run=^"+strings.Join(path, "$/^"), "-test.failfast", "-test.timeout=1m", "-rapid.nofailfile")
			cmd.Env = append(os.Environ(), faultVariable+"="+c.fault)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: "+c.by) {
				t.Errorf("the suite did not notice (%v):\n%s", err, out)
			}
		})
	}
}
