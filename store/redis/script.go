package redisstore

import (
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"strings"
)

//go:embed lua/*.lua
var files embed.FS

// script is a Lua script that the server keeps under its SHA-1.
type script struct {
	text, sha string
	name      any // sha, as an argument
}

// scripts are Step in Lua, and what else must be atomic on the server.
type scripts struct {
	claim, settle, read, forget, swap *script
}

var lua = newScripts(func(text string) string { return text })

func newScripts(edit func(string) string) *scripts {
	file := func(name string) string {
		b, err := files.ReadFile("lua/" + name + ".lua")
		if err != nil {
			panic(err) // it is embedded
		}
		// Comments are for readers: the server need not keep them.
		lines := strings.SplitAfter(string(b), "\n")
		text := ""
		for _, line := range lines {
			if !strings.HasPrefix(strings.TrimSpace(line), "--") {
				text += line
			}
		}
		return text
	}
	build := func(name, flags string) *script {
		text := edit("#!lua" + flags + "\n" + file("prelude") + file(name) + file("postlude"))
		sum := sha1.Sum([]byte(text))
		sha := hex.EncodeToString(sum[:])
		return &script{text, sha, sha}
	}
	// When memory is short the server refuses new claims, and takes everything
	// that ends one.
	return &scripts{
		claim:  build("claim", ""),
		settle: build("settle", " flags=allow-oom"),
		read:   build("read", " flags=no-writes"),
		forget: build("forget", " flags=allow-oom"),
		swap:   build("swap", " flags=allow-oom"),
	}
}
