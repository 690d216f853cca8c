package golden

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
)

// JSONFields returns a line for each value that a T holds as JSON: its path, and its type.
// An entry of a map is "*", one of a list "[]".
func JSONFields[T any]() []string { return fields("", reflect.TypeFor[T]()) }

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

func fields(at string, t reflect.Type) (lines []string) {
	if t.Implements(marshaler) || t.Implements(textMarshaler) {
		return []string{strings.TrimPrefix(at, ".") + " " + t.String()}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return fields(at, t.Elem())
	case reflect.Map:
		return fields(at+".*", t.Elem())
	case reflect.Slice, reflect.Array:
		return fields(at+"[]", t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			lines = append(lines, field(at, t.Field(i))...)
		}
		return lines
	default:
		return []string{strings.TrimPrefix(at, ".") + " " + t.Kind().String()}
	}
}

func field(at string, f reflect.StructField) []string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	switch {
	case name == "-" || !f.IsExported() && !f.Anonymous:
		return nil
	case name == "" && f.Anonymous:
		return fields(at, f.Type)
	case name == "":
		name = f.Name
	}
	return fields(at+"."+name, f.Type)
}
