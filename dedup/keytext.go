package dedup

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The words before the colon in the text of a derived key.
const (
	wordPayload   = "payload"
	wordJSON      = "json"
	wordRecord    = "record"
	wordPosition  = "position"
	wordPerTopic  = "topic"
	wordComposite = "all"
	wordCaller    = "caller"
	wordOwner     = "owner"
	// wordDerived is for a key of no known form: the bytes behind its zero byte, in
	// hexadecimal. The word of a kind that is added later begins with it.
	wordDerived = "derived"
)

// maxNested is how deep keys within keys are put into words: each level quotes the
// one below.
const maxNested = 3

// String returns the key as text that ParseKey reads:
//
//	order-1                              a key that no function derived
//	"two words"                          likewise, quoted as in Go where that is needed
//	payload:9f86d0...                    PayloadHash: the hash in hexadecimal
//	json:["order-1",42]                  JSONKey
//	record:user-7                        RecordKey
//	position:orders/3@42,1767225600...   PositionKey; the timestamp in nanoseconds
//	topic:orders,order-1                 PerTopic: the topic and the key
//	all:tenant-7,`json:["order-1"]`      AllOf: the keys
//	caller:alice,order-1                 who calls over HTTP, and the key
//	owner:                               the record of who uses a scope
//	derived:2a00ff                       a derived key of no such form, in hexadecimal
func (k Key) String() string { return k.words(0) }

func (k Key) words(nested int) string {
	s := string(k)
	if s == "" || s[0] != derived {
		if word, _, ok := strings.Cut(s, ":"); ok && isWord(word) {
			return strconv.Quote(s)
		}
		return quote(s, "")
	}
	if text, ok := k.text(nested); ok {
		return text
	}
	return wordDerived + ":" + hex.EncodeToString([]byte(s[1:]))
}

// isWord reports whether what begins with the word and a colon is the text of a
// derived key, or may be that of one some day.
func isWord(word string) bool {
	switch word {
	case wordPayload, wordJSON, wordRecord, wordPosition, wordPerTopic, wordComposite, wordCaller, wordOwner:
		return true
	}
	return strings.HasPrefix(word, wordDerived)
}

// text returns the text of a derived key, if its value has the form of its kind.
func (k Key) text(nested int) (text string, ok bool) {
	if len(k) < 2 || nested > maxNested {
		return "", false
	}
	value := string(k[2:])
	switch k[1] {
	case kindPayload:
		return wordPayload + ":" + hex.EncodeToString([]byte(value)), len(value) == sha256.Size
	case kindJSON:
		key, err := parseJSON(value)
		return wordJSON + ":" + quote(value, " ,\"'`\\"), err == nil && key == k
	case kindRecord:
		return wordRecord + ":" + quote(value, ""), true
	case kindPosition:
		return positionText(value)
	case kindPerTopic:
		return partsText(wordPerTopic, value, 2, nested)
	case kindComposite:
		return partsText(wordComposite, value, 0, nested)
	case kindCaller:
		return partsText(wordCaller, value, 2, nested)
	case kindOwner:
		return wordOwner + ":", value == ""
	}
	return "", false
}

// quote returns s as it is if it is readable. Else it quotes s as Go does, with
// backquotes if that saves backslashes.
func quote(s, also string) string {
	switch {
	case readable(s, also):
		return s
	case strings.ContainsAny(s, "\"\\") && strconv.CanBackquote(s) && strings.IndexByte(s, '\t') < 0:
		return "`" + s + "`"
	}
	return strconv.Quote(s)
}

// readable reports whether s needs no quotes: it can be printed, and has no space,
// comma, quote or backslash but those in also.
func readable(s, also string) bool {
	if s == "" || isQuote(s[0]) {
		return false
	}
	for i, r := range s {
		if strings.ContainsRune(also, r) {
			continue
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !strconv.IsPrint(r) || strings.ContainsRune(" ,\"'`\\", r) {
			return false
		}
	}
	return true
}

func isQuote(c byte) bool { return c == '"' || c == '`' }

// ParseKey reads what Key.String wrote. Any other text that does not begin with a
// quote, or with one of the words that derived keys begin with and a colon, is the
// key itself.
func ParseKey(text string) (Key, error) {
	key, err := parseKey(text)
	switch {
	case err != nil:
	case key == "":
		err = errors.New("the key is empty")
	case len(key) > MaxKey:
		err = fmt.Errorf("the key has %d bytes, more than %d", len(key), MaxKey)
	default:
		return key, nil
	}
	return "", fmt.Errorf("dedup: this is not the text of a key: %w", err)
}

func parseKey(text string) (Key, error) {
	word, rest, ok := strings.Cut(text, ":")
	if !ok || isQuote(text[0]) || !isWord(word) {
		s, err := unquote(text)
		return Key(s), plainKey(s, err)
	}
	switch word {
	case wordPayload:
		return parsePayload(rest)
	case wordJSON:
		s, err := unquote(rest)
		if err != nil {
			return "", err
		}
		return parseJSON(s)
	case wordRecord:
		s, err := unquote(rest)
		return Key(append(derive(kindRecord, len(s)), s...)), err
	case wordPosition:
		return parsePosition(rest)
	case wordPerTopic:
		return parseParts(kindPerTopic, rest)
	case wordComposite:
		return parseParts(kindComposite, rest)
	case wordCaller:
		return parseParts(kindCaller, rest)
	case wordOwner:
		return parseOwner(rest)
	case wordDerived:
		return parseDerived(rest)
	}
	return "", fmt.Errorf("this program knows no keys that begin with %q: quote the key, if a header says so", word+":")
}

// plainKey reports why s is not a key that no function derived.
func plainKey(s string, err error) error {
	if err == nil && s != "" && s[0] == derived {
		return errors.New("it begins with a zero byte, as only derived keys do")
	}
	return err
}

// unquote reads what quote wrote.
func unquote(text string) (string, error) {
	if text == "" || !isQuote(text[0]) {
		return text, nil
	}
	s, err := strconv.Unquote(text)
	if err != nil {
		return "", errors.New("a quote does not end, or something follows it")
	}
	return s, nil
}

func parsePayload(text string) (Key, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != sha256.Size {
		return "", errors.New("a payload's hash has 64 hexadecimal digits")
	}
	return Key(append(derive(kindPayload, len(b)), b...)), nil
}

func parseDerived(text string) (Key, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return "", errors.New("what follows " + wordDerived + ": are hexadecimal digits, two for each byte")
	}
	return Key(append([]byte{derived}, b...)), nil
}

// parseJSON takes any spelling of an array.
func parseJSON(text string) (Key, error) {
	b := []byte(text)
	if !json.Valid(b) || skipSpace(b)[0] != '[' {
		return "", errors.New("what follows " + wordJSON + ": is a JSON array")
	}
	b, err := appendCanonical(derive(kindJSON, len(b)), b)
	return Key(b), err
}

func parseOwner(text string) (Key, error) {
	if text != "" {
		return "", errors.New(wordOwner + ": stands alone")
	}
	return Key(derive(kindOwner, 0)), nil
}

// partsText returns the text of a value of want parts, or of any number but none if
// want is 0. The first part of two is no key.
func partsText(word, value string, want, nested int) (string, bool) {
	parts, ok := splitParts(value)
	if !ok || len(parts) == 0 || want > 0 && len(parts) != want {
		return "", false
	}
	var b strings.Builder
	b.WriteString(word + ":")
	for i, part := range parts {
		if i > 0 {
			b.WriteByte(',')
		}
		if want == 0 || i > 0 {
			part = Key(part).words(nested + 1)
		}
		b.WriteString(quote(part, ""))
	}
	return b.String(), true
}

// splitParts returns the parts of a value, if appendPart made it.
func splitParts(value string) (parts []string, ok bool) {
	for b := []byte(value); len(b) > 0; {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) || size != len(binary.AppendUvarint(nil, n)) {
			return nil, false
		}
		parts, b = append(parts, string(b[size:size+int(n)])), b[size+int(n):]
	}
	return parts, true
}

func parseParts(kind byte, text string) (Key, error) {
	var parts []string
	for more := true; more; {
		var part string
		if text != "" && isQuote(text[0]) {
			prefix, err := strconv.QuotedPrefix(text)
			if err != nil {
				return "", errors.New("a quote does not end")
			}
			if text = text[len(prefix):]; text != "" && text[0] != ',' {
				return "", errors.New("a comma follows a quote")
			}
			if part, err = unquote(prefix); err != nil {
				return "", err
			}
			text, more = strings.CutPrefix(text, ",")
		} else {
			part, text, more = strings.Cut(text, ",")
		}
		if kind == kindComposite || len(parts) > 0 {
			key, err := parseKey(part)
			if err != nil {
				return "", err
			}
			part = string(key)
		}
		parts = append(parts, part)
	}
	if kind != kindComposite && len(parts) != 2 {
		return "", fmt.Errorf("it has %d parts, not 2", len(parts))
	}
	return compose(kind, parts...), nil
}

// positionText returns the text of the value of a position.
func positionText(value string) (string, bool) {
	b := []byte(value)
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return "", false
	}
	source := string(b[size : size+int(n)])
	b = b[size+int(n):]
	var numbers [3]int64
	count := 0
	for ; len(b) > 0 && count < len(numbers); count++ {
		number, size := binary.Varint(b)
		if size <= 0 {
			return "", false
		}
		numbers[count], b = number, b[size:]
	}
	if len(b) > 0 || count < 2 || numbers[0] != int64(int32(numbers[0])) {
		return "", false
	}
	text := fmt.Sprintf("%s:%s/%d@%d", wordPosition, quote(source, ""), numbers[0], numbers[1])
	if count == 3 {
		text += "," + strconv.FormatInt(numbers[2], 10)
	}
	// A value in another form than PositionKey writes is no position.
	key, err := parsePosition(text[len(wordPosition)+1:])
	return text, err == nil && string(key[2:]) == value
}

func parsePosition(text string) (Key, error) {
	wrong := errors.New("a position is SOURCE/PARTITION@OFFSET, and maybe a comma and a timestamp in nanoseconds")
	slash := strings.LastIndexByte(text, '/')
	if slash < 0 {
		return "", wrong
	}
	source, err := unquote(text[:slash])
	if err != nil {
		return "", err
	}
	rest, stamp, stamped := strings.Cut(text[slash+1:], ",")
	partition, offset, ok := strings.Cut(rest, "@")
	if !ok {
		return "", wrong
	}
	p, err := strconv.ParseInt(partition, 10, 32)
	o, err2 := strconv.ParseInt(offset, 10, 64)
	if err != nil || err2 != nil {
		return "", wrong
	}
	b := []byte(positionKey(Position{Source: source, Partition: int32(p), Offset: o}, time.Time{}))
	if stamped {
		at, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil {
			return "", wrong
		}
		b = binary.AppendVarint(b, at)
	}
	return Key(b), nil
}
