package relay

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
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
	Mechanism    string // sasl, for Kafka: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN
	PasswordFile string // password-file, without the line break at its end
	PasswordEnv  string // password-env: a variable of the environment

	// For NATS, in place of a user.
	Creds     string // creds: file with the user's JWT and its seed
	NKey      string // nkey: file with the user's seed
	TokenFile string // token-file and token-env, like those of the password
	TokenEnv  string
}

// parameters are those for a kind of broker, each with the place of its value: those that
// need TLS, those that need a user, and others.
func (s *Security) parameters(kind Kind) (forTLS, forUser, alone map[string]*string) {
	forTLS = map[string]*string{"tls-ca": &s.CA, "tls-cert": &s.Cert, "tls-key": &s.Key}
	forUser = map[string]*string{"password-file": &s.PasswordFile, "password-env": &s.PasswordEnv}
	if kind == Kafka {
		forUser["sasl"] = &s.Mechanism
	} else {
		alone = map[string]*string{"creds": &s.Creds, "nkey": &s.NKey, "token-file": &s.TokenFile, "token-env": &s.TokenEnv}
	}
	return forTLS, forUser, alone
}

// take takes its parameters, for a kind of broker, out of params, and returns what is
// wrong with them.
func (s *Security) take(kind Kind, params url.Values) error {
	forTLS, forUser, alone := s.parameters(kind)
	for name, values := range params {
		to := cmp.Or(forTLS[name], forUser[name], alone[name])
		switch {
		case to == nil:
			continue
		case len(values) > 1 || values[0] == "":
			return fmt.Errorf("the parameter %s has to have one value", name)
		case forTLS[name] != nil && !s.TLS:
			return fmt.Errorf("%s is for TLS: begin the URL with %s%s://", name, kind, plusTLS)
		case forUser[name] != nil && s.User == "":
			return fmt.Errorf("%s is for a user: write USER@ before the host", name)
		}
		*to = values[0]
		delete(params, name)
	}
	if (s.Cert == "") != (s.Key == "") {
		return errors.New("tls-cert and tls-key belong together")
	}
	if kind == NATS {
		return s.checkNATS()
	}
	s.Mechanism = strings.ToUpper(s.Mechanism)
	switch {
	case s.User == "":
		return nil
	case s.Mechanism == "":
		return errors.New("say how the user authenticates: sasl=SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN")
	case s.Mechanism != "PLAIN" && s.Mechanism != "SCRAM-SHA-256" && s.Mechanism != "SCRAM-SHA-512":
		return fmt.Errorf("sasl=%s: it is SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN", s.Mechanism)
	}
	return s.checkPassword()
}

func (s *Security) checkPassword() error {
	if (s.PasswordFile == "") == (s.PasswordEnv == "") {
		return errors.New("say where the user's password is: password-file=FILE or password-env=NAME")
	}
	return nil
}

// checkSecurity reads the files that the security of e names.
func (e *Endpoint) checkSecurity() error {
	if e.Kind == NATS {
		_, err := e.Security.nats(slog.New(slog.DiscardHandler))
		return err
	}
	_, err := e.Security.kafka()
	return err
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
	return secretOf("password", s.PasswordFile, s.PasswordEnv)
}

// secretOf reads what a file or a variable of the environment holds.
func secretOf(what, file, env string) (string, error) {
	if env != "" {
		if p := os.Getenv(env); p != "" {
			return p, nil
		}
		return "", fmt.Errorf("%s-env: the environment has no %s, or an empty one", what, env)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s-file: %w", what, err)
	}
	p := strings.TrimRight(string(b), "\r\n")
	if p == "" {
		return "", fmt.Errorf("%s-file: %s is empty", what, file)
	}
	return p, nil
}
