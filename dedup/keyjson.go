package dedup

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxExponent is the number of digits of the longest exponent that is read.
const maxExponent = 18

// maxZeros is how many zeros a number may be written with instead of an exponent.
const maxZeros = 20

var errExponent = errors.New("an exponent of more than " + strconv.Itoa(maxExponent) + " digits")

// appendCanonical appends the JSON value in b, which is valid, in a form that says
// what it is and not how it was spelled:
//
//   - no white space;
//   - strings decoded, with \" and \\ escaped, and \u00xx for control characters.
//     Half a surrogate pair stays as it was, \udxxx, and so do bytes that are not
//     UTF-8;
//   - numbers exactly, see appendNumber;
//   - the fields of an object sorted by their names. Of two with one name, the last.
func appendCanonical(dst, b []byte) ([]byte, error) {
	dst, _, err := appendValue(dst, skipSpace(b))
	return dst, err
}

// appendValue appends the value that b begins with, and returns the rest of b.
func appendValue(dst, b []byte) (out, rest []byte, err error) {
	switch b[0] {
	case '"':
		out, rest = appendString(dst, b)
		return out, rest, nil
	case '[':
		return appendArray(dst, b)
	case '{':
		return appendObject(dst, b)
	}
	n := bytes.IndexAny(b, ",]} \t\r\n")
	if n < 0 {
		n = len(b)
	}
	if c := b[0]; c == 't' || c == 'f' || c == 'n' {
		return append(dst, b[:n]...), b[n:], nil
	}
	out, err = appendNumber(dst, b[:n])
	return out, b[n:], err
}

func appendArray(dst, b []byte) (out, rest []byte, err error) {
	dst = append(dst, '[')
	for b = skipSpace(b[1:]); b[0] != ']'; b = skipSpace(b) {
		if b[0] == ',' {
			dst, b = append(dst, ','), skipSpace(b[1:])
		}
		if dst, b, err = appendValue(dst, b); err != nil {
			return dst, b, err
		}
	}
	return append(dst, ']'), b[1:], nil
}

// maxField is the length of the longest canonical field of an object in a key. A key has
// at most MaxKey bytes; only fields that occur twice could make it shorter than its parts.
const maxField = 64 << 10

func appendObject(dst, b []byte) (out, rest []byte, err error) {
	type field struct{ name, value []byte }
	var fields []field
	for b = skipSpace(b[1:]); b[0] != '}'; b = skipSpace(b) {
		if b[0] == ',' {
			b = skipSpace(b[1:])
		}
		var f field
		f.name, b = appendString(nil, b)
		b = skipSpace(skipSpace(b)[1:]) // the colon
		if f.value, b, err = appendValue(nil, b); err != nil {
			return dst, b, err
		}
		if len(f.value) > maxField { // each level around it would copy it once more
			return dst, b, fmt.Errorf("a field of it has more than %d bytes: hash the payload, or take fields of it", maxField)
		}
		fields = append(fields, f)
	}
	slices.SortStableFunc(fields, func(x, y field) int { return bytes.Compare(x.name, y.name) })
	dst = append(dst, '{')
	first := true
	for i, f := range fields {
		if i+1 < len(fields) && bytes.Equal(f.name, fields[i+1].name) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(append(append(dst, f.name...), ':'), f.value...)
	}
	return append(dst, '}'), b[1:], nil
}

func appendString(dst, b []byte) (out, rest []byte) {
	dst = append(dst, '"')
	for b = b[1:]; b[0] != '"'; {
		if b[0] != '\\' {
			dst, b = append(dst, b[0]), b[1:] // it is valid: no control character
			continue
		}
		c := b[1]
		b = b[2:]
		switch c {
		case 'b':
			dst = append(dst, `\u0008`...)
		case 't':
			dst = append(dst, `\u0009`...)
		case 'n':
			dst = append(dst, `\u000a`...)
		case 'f':
			dst = append(dst, `\u000c`...)
		case 'r':
			dst = append(dst, `\u000d`...)
		case 'u':
			dst, b = appendEscaped(dst, b)
		case '"', '\\':
			dst = append(dst, '\\', c)
		default: // a slash
			dst = append(dst, c)
		}
	}
	return append(dst, '"'), b[1:]
}

// appendEscaped appends the character whose four digits b begins with.
func appendEscaped(dst, b []byte) (out, rest []byte) {
	r, b := unit(b), b[4:]
	if utf16.IsSurrogate(r) && len(b) >= 6 && b[0] == '\\' && b[1] == 'u' {
		if pair := utf16.DecodeRune(r, unit(b[2:])); pair != utf8.RuneError {
			return utf8.AppendRune(dst, pair), b[6:]
		}
	}
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r)), b
	case r < ' ' || utf16.IsSurrogate(r):
		return hex.AppendEncode(append(dst, `\u`...), []byte{byte(r >> 8), byte(r)}), b
	}
	return utf8.AppendRune(dst, r), b
}

// unit reads four hexadecimal digits.
func unit(b []byte) rune {
	n, _ := strconv.ParseUint(string(b[:4]), 16, 16) // they are valid
	return rune(n)
}

// appendNumber appends the number in b, which is valid, exactly: its digits without
// zeros at either end, times a power of ten. That is written with zeros and a point
// if it takes at most maxZeros zeros, and else as an exponent. So nothing grows with
// an exponent's value. Minus zero is zero.
func appendNumber(dst, b []byte) ([]byte, error) {
	negative := b[0] == '-'
	if negative {
		b = b[1:]
	}
	mantissa, power := b, int64(0)
	if e := bytes.IndexAny(b, "eE"); e >= 0 {
		mantissa = b[:e]
		exponent := bytes.TrimPrefix(b[e+1:], []byte("+"))
		minus := bytes.HasPrefix(exponent, []byte("-"))
		exponent = bytes.TrimLeft(bytes.TrimPrefix(exponent, []byte("-")), "0")
		if len(exponent) > maxExponent {
			if len(bytes.Trim(mantissa, "0.")) == 0 {
				return append(dst, '0'), nil
			}
			return dst, errExponent
		}
		if len(exponent) > 0 {
			power, _ = strconv.ParseInt(string(exponent), 10, 64) // digits only, and few
		}
		if minus {
			power = -power
		}
	}
	whole, part, _ := bytes.Cut(mantissa, []byte("."))
	digits := slices.Concat(whole, part)
	power -= int64(len(part))
	n := len(digits)
	digits = bytes.TrimRight(digits, "0")
	power += int64(n - len(digits))
	digits = bytes.TrimLeft(digits, "0")
	if len(digits) == 0 {
		return append(dst, '0'), nil
	}
	if negative {
		dst = append(dst, '-')
	}
	point := int64(len(digits)) + power // how many digits stand before it
	switch {
	case power >= 0 && power <= maxZeros:
		return appendZeros(append(dst, digits...), power), nil
	case power < 0 && point > 0:
		return append(append(append(dst, digits[:point]...), '.'), digits[point:]...), nil
	case power < 0 && -point < maxZeros:
		return append(appendZeros(append(dst, '0', '.'), -point), digits...), nil
	}
	return strconv.AppendInt(append(append(dst, digits...), 'e'), power, 10), nil
}

func appendZeros(dst []byte, n int64) []byte {
	for range n {
		dst = append(dst, '0')
	}
	return dst
}

func skipSpace(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n") }
