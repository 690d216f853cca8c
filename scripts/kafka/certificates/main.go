// Command certificates writes the certificates and keys of a broker and its clients into a
// directory, in PEM, for scripts/kafka.sh:
//
//	ca.pem                        the authority that issued the others
//	broker.pem, expired.pem       a broker's key and certificate; one that was valid until yesterday
//	client-key.pem, client.pem    a client's
package main

import (
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/oncequeue/oncequeue/internal/testcert"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: certificates DIRECTORY")
	}
	if err := write(os.Args[1]); err != nil {
		log.Fatal("certificates: ", err)
	}
}

func write(dir string) error {
	a, err := testcert.New()
	if err != nil {
		return err
	}
	day := 24 * time.Hour
	key, cert, err := a.Issue("broker", time.Now().Add(day))
	if err != nil {
		return err
	}
	oldKey, old, err := a.Issue("broker", time.Now().Add(-day))
	if err != nil {
		return err
	}
	clientKey, client, err := a.Issue("client", time.Now().Add(day))
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.pem":         a.PEM(),
		"broker.pem":     append(key, cert...),
		"expired.pem":    append(oldKey, old...),
		"client-key.pem": clientKey,
		"client.pem":     client,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
