package relay

import (
	"crypto/tls"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/testcert"
)

// Each way to authenticate gets in, and without it nobody does, in one line and
// without the secret.
func TestNATSCredentials(t *testing.T) {
	t.Setenv("NATS_SECRET", "s3cret")
	t.Setenv("NATS_WRONG", "wr0ng")
	secret, wrong := write(t, "s3cret\n"), write(t, "wr0ng")
	seed, public := userKey(t)
	other, _ := userKey(t)
	operator, creds := operatorWithUser(t)
	for name, test := range map[string]struct {
		server func(*natsserver.Options)
		right  string
		wrong  string
	}{
		"user":     {func(o *natsserver.Options) { o.Username, o.Password = "u", "s3cret" }, "nats://u@HOST?password-file=" + secret, "nats://u@HOST?password-env=NATS_WRONG"},
		"user env": {func(o *natsserver.Options) { o.Username, o.Password = "u", "s3cret" }, "nats://u@HOST?password-env=NATS_SECRET", "nats://HOST"},
		"token":    {func(o *natsserver.Options) { o.Authorization = "s3cret" }, "nats://HOST?token-file=" + secret, "nats://HOST?token-file=" + wrong},
		"nkey":     {func(o *natsserver.Options) { o.Nkeys = []*natsserver.NkeyUser{{Nkey: public}} }, "nats://HOST?nkey=" + write(t, seed), "nats://HOST?nkey=" + write(t, other)},
		"creds":    {operator, "nats://HOST?creds=" + write(t, creds), "nats://HOST"},
	} {
		t.Run(name, func(t *testing.T) {
			n := brokertest.NewNATS(t, &brokertest.NATSOptions{More: func(o *natsserver.Options) {
				test.server(o)
				if name == "creds" {
					o.JetStream = false // accounts have none here
				}
			}})
			host := strings.TrimPrefix(n.URL(), "nats://") + "/orders"
			if err := connects(t, strings.Replace(test.right, "HOST", host, 1)); err != nil {
				t.Errorf("%s: %v", test.right, err)
			}
			err := connects(t, strings.Replace(test.wrong, "HOST", host, 1))
			if err == nil || !strings.Contains(err.Error(), "refuses the relay") || strings.Contains(err.Error(), "wr0ng") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: got %v, want a line that says so", test.wrong, err)
			}
		})
	}
}

func TestNATSOverTLS(t *testing.T) {
	authority, err := testcert.New()
	if err != nil {
		t.Fatal(err)
	}
	tomorrow := time.Now().Add(24 * time.Hour)
	own, err := authority.IssueTLS("server", tomorrow)
	if err != nil {
		t.Fatal(err)
	}
	key, cert, err := authority.Issue("relay", tomorrow)
	if err != nil {
		t.Fatal(err)
	}
	n := brokertest.NewNATS(t, &brokertest.NATSOptions{More: func(o *natsserver.Options) {
		o.TLS, o.TLSVerify = true, true
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool()}
	}})
	plain := brokertest.NewNATS(t, nil)
	at := func(n *brokertest.NATS) string {
		return "nats+tls://" + strings.TrimPrefix(n.URL(), "nats://") + "/orders?"
	}
	ca := "tls-ca=" + write(t, string(authority.PEM()))
	pair := "&tls-cert=" + write(t, string(cert)) + "&tls-key=" + write(t, string(key))
	for url, want := range map[string]string{
		at(n) + ca + pair:     "",
		at(n) + ca:            "name it with tls-cert",
		at(n) + pair[1:]:      "tls-ca=FILE",
		at(plain) + ca + pair: "does not speak TLS",
	} {
		err := connects(t, url)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", url, err, want)
		}
	}
}

// connects tries the endpoint of the URL.
func connects(t *testing.T, url string) error {
	t.Helper()
	e, err := ParseTarget(url)
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := connect(e, slog.New(slog.DiscardHandler))
	if err == nil {
		conn.Close()
	}
	return err
}

func userKey(t *testing.T) (seed, public string) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	s, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	public, err = pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return string(s), public
}

// operatorWithUser makes a server trust an operator, and returns the credentials of a
// user of its only account.
func operatorWithUser(t *testing.T) (func(*natsserver.Options), string) {
	t.Helper()
	public := func(pair nkeys.KeyPair, err error) (nkeys.KeyPair, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		p, err := pair.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return pair, p
	}
	operator, operatorPublic := public(nkeys.CreateOperator())
	account, accountPublic := public(nkeys.CreateAccount())
	seed, userPublic := userKey(t)
	operatorClaims := jwt.NewOperatorClaims(operatorPublic)
	encode := func(c jwt.Claims, by nkeys.KeyPair) string {
		t.Helper()
		token, err := c.Encode(by)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	encode(operatorClaims, operator)
	accountToken := encode(jwt.NewAccountClaims(accountPublic), operator)
	userToken := encode(jwt.NewUserClaims(userPublic), account)
	creds, err := jwt.FormatUserConfig(userToken, []byte(seed))
	if err != nil {
		t.Fatal(err)
	}
	return func(o *natsserver.Options) {
		o.TrustedOperators = []*jwt.OperatorClaims{operatorClaims}
		resolver := &natsserver.MemAccResolver{}
		_ = resolver.Store(accountPublic, accountToken)
		o.AccountResolver = resolver
	}, string(creds)
}
