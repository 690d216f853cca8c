package relay

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
)

// Security is how an endpoint is reached, as its URL says. It holds no secret, but
// where to find it: what is in a URL shows in process lists.
type Security struct {
	TLS  bool   // scheme ends in +tls
	CA   string // tls-ca: PEM file of the authorities to trust; empty: those of the system
	Cert string // tls-cert and tls-key: PEM files of the client's own certificate
	Key  string

	User         string // before the @
	Mechanism    string // sasl: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN
	PasswordFile string // password-file, without the line break at its end
	PasswordEnv  string // password-env: a variable of the environment
}

// take takes its parameters out of params, and returns what is wrong with them.
func (s *Security) take(params url.Values) error {
	tlsOnly := map[string]*string{"tls-ca": &s.CA, "tls-cert": &s.Cert, "tls-key": &s.Key}
	userOnly := map[string]*string{"sasl": &s.Mechanism, "password-file": &s.PasswordFile, "password-env": &s.PasswordEnv}
	for name, values := range params {
		to, forTLS := tlsOnly[name]
		if !forTLS {
			to = userOnly[name]
		}
		switch {
		case to == nil:
			continue
		case len(values) > 1 || values[0] == "":
			return fmt.Errorf("the parameter %s has to have one value", name)
		case forTLS && !s.TLS:
			return fmt.Errorf("%s is for TLS: begin the URL with kafka+tls://", name)
		case !forTLS && s.User == "":
			return fmt.Errorf("%s is for a user: write USER@ before the host", name)
		}
		*to = values[0]
		delete(params, name)
	}
	s.Mechanism = strings.ToUpper(s.Mechanism)
	switch {
	case (s.Cert == "") != (s.Key == ""):
		return errors.New("tls-cert and tls-key belong together")
	case s.User == "":
		return nil
	case s.Mechanism == "":
		return errors.New("say how the user authenticates: sasl=SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN")
	case s.Mechanism != "PLAIN" && s.Mechanism != "SCRAM-SHA-256" && s.Mechanism != "SCRAM-SHA-512":
		return fmt.Errorf("sasl=%s: it is SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN", s.Mechanism)
	case (s.PasswordFile == "") == (s.PasswordEnv == ""):
		return errors.New("say where the user's password is: password-file=FILE or password-env=NAME")
	}
	return nil
}

// kafka returns what a Kafka client needs. It reads the files.
func (s *Security) kafka() (k kafkatransport.Security, err error) {
	if s.TLS {
		if k.TLS, err = s.tls(); err != nil {
			return k, err
		}
	}
	if s.User != "" {
		k.SASL, err = s.sasl()
	}
	return k, err
}

func (s *Security) tls() (*tls.Config, error) {
	c := &tls.Config{}
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, fmt.Errorf("tls-ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls-ca: %s holds no certificate in PEM", s.CA)
		}
	}
	if s.Cert != "" {
		if _, err := s.certificate(nil); err != nil {
			return nil, err
		}
		c.GetClientCertificate = s.certificate
	}
	return c, nil
}

// certificate reads the client's own certificate, for each connection anew: it may
// have been renewed.
func (s *Security) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(s.Cert, s.Key)
	if err != nil {
		return nil, fmt.Errorf("tls-cert, tls-key: %w", err)
	}
	return &c, nil
}

func (s *Security) sasl() (sasl.Mechanism, error) {
	password, err := s.password()
	if err != nil {
		return nil, err
	}
	algorithm := scram.SHA512
	switch s.Mechanism {
	case "PLAIN":
		return plain.Mechanism{Username: s.User, Password: password}, nil
	case "SCRAM-SHA-256":
		algorithm = scram.SHA256
	}
	m, err := scram.Mechanism(algorithm, s.User, password)
	if err != nil {
		return nil, errors.New("the user or the password has characters that SCRAM forbids (RFC 4013)")
	}
	return m, nil
}

func (s *Security) password() (string, error) {
	if s.PasswordEnv != "" {
		if p := os.Getenv(s.PasswordEnv); p != "" {
			return p, nil
		}
		return "", fmt.Errorf("password-env: the environment has no %s, or an empty one", s.PasswordEnv)
	}
	b, err := os.ReadFile(s.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password-file: %w", err)
	}
	p := strings.TrimRight(string(b), "\r\n")
	if p == "" {
		return "", fmt.Errorf("password-file: %s is empty", s.PasswordFile)
	}
	return p, nil
}
