//go:build real

package kafkatransport

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// javaMember is a process with a Java consumer.
type javaMember struct {
	cmd *exec.Cmd

	mu   sync.Mutex
	seen map[string]bool // values
	over bool

	log bytes.Buffer // to be read when the process has ended
}

// startJava starts a Java member of the group. KAFKA_JARS is the directory with the jars of
// Apache Kafka.
func (c *cluster) startJava(group, topic, protocol string) *javaMember {
	c.t.Helper()
	jars := os.Getenv("KAFKA_JARS")
	if jars == "" {
		missing(c.t, "KAFKA_JARS is not set: run make test-real, or set it to the directory with the jars of Apache Kafka")
	}
	m := &javaMember{seen: make(map[string]bool)}
	m.cmd = exec.Command("java", "-cp", jars+"/*", "testdata/Member.java", strings.Join(c.addrs, ","), group, topic, protocol)
	out, err := m.cmd.StdoutPipe()
	c.must(err)
	m.cmd.Stderr = &m.log
	c.must(m.cmd.Start())
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			m.mu.Lock()
			m.seen[lines.Text()] = true
			m.mu.Unlock()
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.over = true
	})
	c.t.Cleanup(func() {
		_ = m.cmd.Process.Kill()
		reading.Wait()
		_ = m.cmd.Wait()
		if c.t.Failed() {
			c.t.Logf("java: %s", m.log.Bytes())
		}
	})
	return m
}

// alive says how many values it has read, and whether it goes on.
func (m *javaMember) alive() (read int, alive bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.seen), !m.over
}

// TestRealJavaMembersShareTheGroup: a Java consumer with its defaults joins before and after
// this one, by the classic protocol and by that of KIP-848. Both go on.
func TestRealJavaMembersShareTheGroup(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"classic", "consumer"} {
		for _, first := range []string{"ours", "java"} {
			t.Run(protocol+" "+first+" first", func(t *testing.T) {
				const partitions, n = 4, 400
				c := realCluster(t)
				if old, _ := filepath.Glob(os.Getenv("KAFKA_JARS") + "/kafka-clients-3.*"); protocol == "consumer" && len(old) > 0 {
					t.Skip("Kafka 3 does not have this protocol unless it is switched on")
				}
				topic := c.newTopic(partitions, nil)
				group := "g-" + topic
				j := newJournal()
				consumer, d := newConsumer(t, c, group, c.config(), topic), newDeduplicator(t, nil)
				var java *javaMember
				ours := func() { start(t, func(ctx context.Context) error { return consumer.Run(ctx, d, j.handle) }) }
				theirs := func() { java = c.startJava(group, topic, protocol) }
				sent := 0
				write := func() {
					records := numbered(topic, sent, n, n)
					for i, r := range records {
						r.Partition = int32(i % partitions)
					}
					c.produce(records...)
					sent += n
				}
				write()
				if first == "ours" {
					ours()
					eventually(t, "ours has read all", func() bool { return j.seen() == n })
					theirs()
				} else {
					theirs()
					eventually(t, "java has read all", func() bool { read, _ := java.alive(); return read == n })
					ours()
				}
				eventually(t, "each holds two partitions", func() bool {
					_, alive := java.alive()
					if !alive {
						t.Fatal("the Java member has ended")
					}
					return consumer.Status().well(2)
				})
				write()
				eventually(t, "both have read the rest", func() bool {
					java.mu.Lock()
					defer java.mu.Unlock()
					j.mu.Lock()
					defer j.mu.Unlock()
					for i := range sent {
						if v := fmt.Sprint(i); !java.seen[v] && j.runs[v] == 0 {
							return false
						}
					}
					return true
				})
				if read, alive := java.alive(); !alive || read == 0 || j.seen() == 0 {
					t.Errorf("got java alive %v with %d messages, ours with %d", alive, read, j.seen())
				}
			})
		}
	}
}
