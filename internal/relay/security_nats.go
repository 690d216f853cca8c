package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/nats-io/nats.go"
)

// checkNATS returns what is wrong with the parameters of a NATS endpoint.
func (s *Security) checkNATS() error {
	ways := 0
	for _, way := range []string{s.User, s.Creds, s.NKey, s.TokenFile + s.TokenEnv} {
		if way != "" {
			ways++
		}
	}
	switch {
	case ways > 1:
		return errors.New("there is more than one way to authenticate: it is one of creds, nkey, token-file or token-env, and a user with a password")
	case s.TokenFile != "" && s.TokenEnv != "":
		return errors.New("token-file and token-env: it is one of them")
	case s.User != "":
		return s.checkPassword()
	}
	return nil
}

// nats returns what a NATS client needs. It reads the files once, to tell what is
// wrong with them, and again at each connection: they may have been renewed.
func (s *Security) nats(logger *slog.Logger) (opts []nats.Option, err error) {
	if s.TLS {
		c, err := s.tls()
		if err != nil {
			return nil, err
		}
		opts = append(opts, nats.Secure(c))
	}
	// again reads a secret for a new connection, and keeps to the old one if it cannot.
	again := func(old string, read func() (string, error)) string {
		secret, err := read()
		if err != nil {
			logger.Warn("a secret cannot be read any more, using the one from before", "err", err)
			return old
		}
		return secret
	}
	switch {
	case s.Creds != "":
		if _, err := os.ReadFile(s.Creds); err != nil {
			return nil, fmt.Errorf("creds: %w", err)
		}
		opts = append(opts, nats.UserCredentials(s.Creds))
	case s.NKey != "":
		nkey, err := nats.NkeyOptionFromSeed(s.NKey)
		if err != nil {
			return nil, fmt.Errorf("nkey: %s: %w", s.NKey, err)
		}
		opts = append(opts, nkey)
	case s.TokenFile+s.TokenEnv != "":
		read := func() (string, error) { return secretOf("token", s.TokenFile, s.TokenEnv) }
		token, err := read()
		if err != nil {
			return nil, err
		}
		opts = append(opts, nats.TokenHandler(func() string { return again(token, read) }))
	case s.User != "":
		password, err := s.password()
		if err != nil {
			return nil, err
		}
		user := s.User
		opts = append(opts, nats.UserInfoHandler(func() (string, string) { return user, again(password, s.password) }))
	}
	return opts, nil
}
