//go:build real

package redisstore_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands before a server. Now and then it ends a connection after the server
// has carried out what was asked, and before its reply is passed on.
type proxy struct {
	listener net.Listener
	target   string
	cuts     atomic.Int64 // replies that were lost
	every    atomic.Int64 // of so many reads of replies one is lost; 0: none

	mu    sync.Mutex
	conns map[net.Conn]bool
	busy  sync.WaitGroup
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.busy.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.busy.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = c.Close()
			continue
		}
		p.mu.Lock()
		p.conns[c], p.conns[s] = true, true
		p.mu.Unlock()
		p.busy.Go(func() {
			_, _ = io.Copy(s, c)
			p.close(c, s)
		})
		p.busy.Go(func() {
			p.replies(c, s)
			p.close(c, s)
		})
	}
}

// replies passes them on until one is lost.
func (p *proxy) replies(c, s net.Conn) {
	buf := make([]byte, 64<<10)
	for n := int64(1); ; n++ {
		k, err := s.Read(buf)
		if err != nil {
			return
		}
		if every := p.every.Load(); every > 0 && n%every == 0 {
			p.cuts.Add(1)
			return
		}
		if _, err := c.Write(buf[:k]); err != nil {
			return
		}
	}
}

func (p *proxy) close(c, s net.Conn) {
	_ = c.Close()
	_ = s.Close()
	p.mu.Lock()
	delete(p.conns, c)
	delete(p.conns, s)
	p.mu.Unlock()
}
