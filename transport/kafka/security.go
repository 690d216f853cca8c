package kafkatransport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
)

// Security says how all connections to the brokers are secured: the connections of the
// consumer group, and those for fetching and writing. The zero value means plaintext without
// authentication, for which brokers have the listener type PLAINTEXT.
type Security struct {
	// TLS encrypts the connections and checks the brokers' certificates. It is for the
	// listener types SSL and SASL_SSL. RootCAs are the authorities to trust; nil means those
	// of the system. Certificates or GetClientCertificate give the client's own certificate.
	// If ServerName is empty, the host in each address is used, as the brokers advertise it.
	// The config must not change afterwards. Default nil: no TLS.
	TLS *tls.Config
	// SASL authenticates the client on each new connection. It is for the listener types
	// SASL_SSL and SASL_PLAINTEXT. Use plain.Mechanism or scram.Mechanism of kafka-go's
	// packages sasl/plain and sasl/scram, or any other implementation. PLAIN sends the
	// password unencrypted, so use it only with TLS. Connections are not authenticated a
	// second time (KIP-368): a broker with connections.max.reauth.ms ends them, and new ones
	// are made. A message that a Sink was writing at that moment is MaybeDone. Default nil:
	// no authentication.
	SASL sasl.Mechanism
}

// open opens a connection, with TLS if that is asked for, and also returns what is
// below TLS.
func (s *Security) open(ctx context.Context, network, address string) (c, raw net.Conn, err error) {
	d := net.Dialer{Timeout: connectTimeout}
	if raw, err = d.DialContext(ctx, network, address); err != nil {
		return nil, nil, err
	}
	c, err = s.secure(ctx, raw, address)
	return c, raw, err
}

// secure returns c with TLS, if that is asked for. It closes c if it fails.
func (s *Security) secure(ctx context.Context, c net.Conn, address string) (net.Conn, error) {
	if s.TLS == nil {
		return c, nil
	}
	config := s.TLS
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			_ = c.Close()
			return nil, err
		}
		config = config.Clone()
		config.ServerName = host
	}
	t := tls.Client(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, &handshakeError{fmt.Errorf("TLS handshake with %s: %w", address, err)}
	}
	return t, nil
}

type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

var (
	// errMute does not match io.EOF, which kafka-go would put in its place.
	errMute    = errors.New("the broker ended the connection without an answer")
	errTLSPort = errors.New("the broker answered with TLS")
)

// firstRead looks at what the first read of a connection without TLS brought.
func firstRead(b []byte, err error) error {
	switch {
	case len(b) >= 2 && b[0] == 0x15 && b[1] == 3: // the head of a TLS alert
		return errTLSPort
	case len(b) == 0 && hungUp(err):
		return errMute
	}
	return err
}

func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// explain returns what is probably wrong, for errors of connections that do not
// say it themselves, and what to do. It returns "" for others.
func (s *Security) explain(err error) string {
	var (
		handshake *handshakeError
		unknown   x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
		alert     *net.OpError
	)
	switch {
	case errors.Is(err, errTLSPort):
		return "its port is one for TLS; connect with TLS"
	case errors.Is(err, errMute):
		return "a port for TLS does that to a client without; connect with TLS if it is one"
	case errors.As(err, &unknown):
		return "trust the authority that issued the broker's certificate, if it is the right one"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the broker's certificate, or set this machine's clock"
	case errors.As(err, &name):
		return "connect to a name that the broker's certificate holds, or issue another certificate"
	case errors.As(err, &alert) && alert.Op == "remote error" && strings.Contains(alert.Error(), "certificate"):
		return "the broker refuses this client's certificate, or wants one"
	case errors.As(err, &handshake) && (hungUp(err) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(tls.RecordHeaderError))):
		return "its port is probably one without TLS; connect without, or correct the port"
	case errors.Is(err, kafka.SASLAuthenticationFailed):
		return "the broker does not know the user, or not with this password and mechanism"
	case errors.Is(err, kafka.UnsupportedSASLMechanism) && s.SASL != nil:
		return "the broker does not offer " + s.SASL.Name() + "; choose a mechanism of its sasl.enabled.mechanisms"
	case errors.Is(err, kafka.IllegalSASLState):
		return "its port is one without authentication; leave SASL out, or correct the port"
	case s.SASL == nil && hungUp(err):
		return "a port for SASL does that to a client without; authenticate if it is one"
	}
	return ""
}
