package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup/driver"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// redisURL is a Redis server, a master that Sentinels know, or a Redis Cluster:
//
//	redis[s]://[USER@]HOST:PORT[/DB]
//	redis[s]+sentinel://[USER@]HOST:PORT[,HOST:PORT]/MASTER
//	redis[s]+cluster://[USER@]HOST:PORT[,HOST:PORT]
//
// Its parameters are prefix, and those of Security but sasl; with Sentinels also db,
// and where their own password is. The user is that of the servers.
type redisURL struct {
	Hosts    string // comma-separated; with a Master those of the Sentinels
	Master   string
	Cluster  bool
	DB       int
	Prefix   string
	Security Security
	Sentinel Security // PasswordFile or PasswordEnv
}

const (
	plusCluster  = "+cluster"
	plusSentinel = "+sentinel"
	redisForm    = "redis://HOST:PORT/DB, redis+sentinel://HOST:PORT,HOST:PORT/MASTER or redis+cluster://HOST:PORT,HOST:PORT, with rediss for TLS"
)

// masterName is what Sentinel takes for a name.
var masterName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// String returns the URL without user and parameters.
func (u redisURL) String() string {
	scheme, db := "redis", "/"+strconv.Itoa(u.DB)
	if u.Security.TLS {
		scheme += "s"
	}
	switch {
	case u.Cluster:
		scheme, db = scheme+plusCluster, ""
	case u.Master != "" && u.DB > 0:
		scheme, db = scheme+plusSentinel, fmt.Sprintf("/%s?db=%d", u.Master, u.DB)
	case u.Master != "":
		scheme, db = scheme+plusSentinel, "/"+u.Master
	}
	return scheme + "://" + u.Hosts + db
}

// isRedis reports whether s is meant as a redisURL.
func isRedis(s string) bool {
	scheme, _, ok := strings.Cut(s, "://")
	scheme = strings.TrimSuffix(strings.TrimSuffix(scheme, plusCluster), plusSentinel)
	return ok && (scheme == "redis" || scheme == "rediss")
}

func parseRedis(s string) (u redisURL, err error) {
	shown := redacted("", s)
	wrong := func(format string, args ...any) (redisURL, error) {
		return redisURL{}, fmt.Errorf("%q: "+format, append([]any{shown}, args...)...)
	}
	scheme, rest, _ := strings.Cut(s, "://")
	scheme, u.Cluster = strings.CutSuffix(scheme, plusCluster)
	scheme, sentinel := strings.CutSuffix(scheme, plusSentinel)
	u.Security.TLS = scheme == "rediss"
	rest, query, _ := strings.Cut(rest, "?")
	hosts, db, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(hosts, '@'); at >= 0 {
		u.Security.User, err = url.PathUnescape(hosts[:at])
		switch {
		case strings.Contains(hosts[:at], ":"):
			return wrong("%w", errPassword)
		case err != nil || at == 0:
			return wrong("what stands before the @ is no user")
		}
		hosts = hosts[at+1:]
	}
	if strings.Contains(db, "@") { // the password has a slash
		return wrong("%w", errPassword)
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if err := checkHost(host); err != nil {
			return wrong("host %q: %w: write %s", host, err, redisForm)
		}
	}
	u.Hosts = hosts
	switch {
	case sentinel && (u.Cluster || !masterName.MatchString(db)):
		return wrong("after the Sentinels comes the name of the master that they watch: write %s", redisForm)
	case sentinel:
		u.Master = db
	case !u.Cluster && strings.Contains(hosts, ","):
		return wrong("several hosts are for Sentinels or a cluster: write %s", redisForm)
	case u.Cluster && db != "":
		return wrong("a Redis Cluster has one database: leave /%s away", db)
	case db != "":
		if u.DB, err = strconv.Atoi(db); err != nil || u.DB < 0 {
			return wrong("%q is no number of a database: write %s", db, redisForm)
		}
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return wrong("parameters: %w", err)
	}
	return u, u.take(params, shown)
}

// parameters are those of the URL, each with the place of its value; db is that of the
// database, which stands in the path unless there are Sentinels.
func (u *redisURL) parameters(db *string) map[string]*string {
	s := &u.Security
	names := map[string]*string{
		"prefix": &u.Prefix, "password-file": &s.PasswordFile, "password-env": &s.PasswordEnv,
		"tls-ca": &s.CA, "tls-cert": &s.Cert, "tls-key": &s.Key,
	}
	if u.Master != "" {
		names["db"], names["sentinel-password-file"], names["sentinel-password-env"] = db, &u.Sentinel.PasswordFile, &u.Sentinel.PasswordEnv
	}
	return names
}

// forTLS reports whether a parameter is for connections over TLS alone.
func forTLS(name string) bool { return strings.HasPrefix(name, "tls-") }

func (u *redisURL) take(params url.Values, shown string) error {
	s := &u.Security
	db := ""
	names := u.parameters(&db)
	for name, values := range params {
		to := names[name]
		switch {
		case to == nil:
			return fmt.Errorf("%q: a Redis URL has no parameter %q: it has prefix, password-file, password-env, tls-ca, tls-cert and tls-key, and with Sentinels db, sentinel-password-file and sentinel-password-env", shown, name)
		case len(values) > 1 || values[0] == "":
			return fmt.Errorf("%q: the parameter %s has to have one value", shown, name)
		case forTLS(name) && !s.TLS:
			return fmt.Errorf("%q: %s is for TLS: begin the URL with rediss", shown, name)
		}
		*to = values[0]
	}
	if db != "" {
		var err error
		if u.DB, err = strconv.Atoi(db); err != nil || u.DB < 0 {
			return fmt.Errorf("%q: db=%s is no number of a database", shown, db)
		}
	}
	switch {
	case (s.Cert == "") != (s.Key == ""):
		return fmt.Errorf("%q: tls-cert and tls-key belong together", shown)
	case s.PasswordFile != "" && s.PasswordEnv != "":
		return fmt.Errorf("%q: the password is in one place: password-file or password-env", shown)
	case u.Sentinel.PasswordFile != "" && u.Sentinel.PasswordEnv != "":
		return fmt.Errorf("%q: the Sentinels' password is in one place: sentinel-password-file or sentinel-password-env", shown)
	case s.User != "" && s.PasswordFile == "" && s.PasswordEnv == "":
		return fmt.Errorf("%q: say where the user's password is: password-file=FILE or password-env=NAME", shown)
	}
	return nil
}

// open connects, and looks whether the servers can keep records.
func (u redisURL) open(ctx context.Context, vouchFrom time.Time, logger *slog.Logger) (driver.Store, io.Closer, error) {
	o := redis.UniversalOptions{
		Addrs: strings.Split(u.Hosts, ","), IsClusterMode: u.Cluster, DB: u.DB,
		Username: u.Security.User, ContextTimeoutEnabled: true, MasterName: u.Master,
	}
	var err error
	if u.Security.TLS {
		if o.TLSConfig, err = u.Security.tls(); err != nil {
			return nil, nil, err
		}
	}
	if u.Security.PasswordEnv != "" || u.Security.PasswordFile != "" {
		if o.Password, err = u.Security.password(); err != nil {
			return nil, nil, err
		}
	}
	if u.Sentinel.PasswordEnv != "" || u.Sentinel.PasswordFile != "" {
		if o.SentinelPassword, err = secretOf("sentinel-password", u.Sentinel.PasswordFile, u.Sentinel.PasswordEnv); err != nil {
			return nil, nil, err
		}
	}
	client := redis.NewUniversalClient(&o)
	s, err := redisstore.New(client, &redisstore.Options{Prefix: u.Prefix, VouchFrom: vouchFrom, Logger: logger})
	if err == nil {
		err = s.Check(ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return s, client, nil
}
