package house

import (
	"fmt"
	"go/types"
	"slices"
	"strings"
)

// Public reports whether other modules can import the package.
func (p *Package) Public() bool {
	return p.types.Name() != "main" && !strings.Contains("/"+p.Path+"/", "/internal/")
}

// API returns what other modules can use of the package, a line for each name: its
// constants with their values, functions, variables, and types with their fields and
// methods. Names of parameters are left out, as callers do not write them.
func (p *Package) API() (lines []string) {
	for _, name := range p.types.Scope().Names() {
		if o := p.types.Scope().Lookup(name); o.Exported() {
			lines = append(lines, p.lines(o)...)
		}
	}
	slices.Sort(lines)
	return lines
}

func (p *Package) lines(o types.Object) []string {
	switch o := o.(type) {
	case *types.Const:
		return []string{fmt.Sprintf("const %s %s = %s", o.Name(), p.text(o.Type()), o.Val().ExactString())}
	case *types.Var:
		return []string{"var " + o.Name() + " " + p.text(o.Type())}
	case *types.Func:
		return []string{"func " + o.Name() + p.signature(o)}
	case *types.TypeName:
		return p.typeLines(o)
	}
	return nil
}

// typeLines returns a type with its fields and methods. Those of an alias are listed
// where it leads.
func (p *Package) typeLines(o *types.TypeName) []string {
	if o.IsAlias() {
		return []string{"type " + o.Name() + " = " + p.text(types.Unalias(o.Type()))}
	}
	named, ok := o.Type().(*types.Named)
	if !ok {
		return nil
	}
	head := "type " + o.Name() + p.parameters(named.TypeParams())
	switch u := named.Underlying().(type) {
	case *types.Struct:
		return append(append([]string{head + " struct"}, p.fields(o.Name(), u)...), p.methods(o.Name(), named)...)
	case *types.Interface:
		return append([]string{head + " interface"}, p.interfaceMethods(o.Name(), u)...)
	default:
		return append([]string{head + " " + p.text(u)}, p.methods(o.Name(), named)...)
	}
}

// parameters returns type parameters, in brackets; empty for none.
func (p *Package) parameters(list *types.TypeParamList) string {
	var all []string
	for parameter := range list.TypeParams() {
		all = append(all, parameter.Obj().Name()+" "+p.text(parameter.Constraint()))
	}
	if all == nil {
		return ""
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// fields returns the exported fields of a struct, and those that it has from fields
// without a name.
func (p *Package) fields(owner string, s *types.Struct) (lines []string) {
	for f := range s.Fields() {
		if f.Exported() {
			lines = append(lines, fmt.Sprintf("field %s.%s %s", owner, f.Name(), p.text(f.Type())))
			continue
		}
		if inner, ok := deref(f.Type()).Underlying().(*types.Struct); ok && f.Embedded() {
			lines = append(lines, p.fields(owner, inner)...)
		}
	}
	return lines
}

func deref(t types.Type) types.Type {
	if pointer, ok := t.Underlying().(*types.Pointer); ok {
		return pointer.Elem()
	}
	return t
}

// methods returns the exported methods of a type, those of its fields without a name
// included.
func (p *Package) methods(owner string, t types.Type) (lines []string) {
	of := types.NewMethodSet(t)
	for s := range types.NewMethodSet(types.NewPointer(t)).Methods() {
		m, ok := s.Obj().(*types.Func)
		if !ok || !m.Exported() {
			continue
		}
		receiver := "*" + owner
		if of.Lookup(m.Pkg(), m.Name()) != nil {
			receiver = owner
		}
		lines = append(lines, fmt.Sprintf("method (%s) %s%s", receiver, m.Name(), p.signature(m)))
	}
	return lines
}

func (p *Package) interfaceMethods(owner string, t *types.Interface) (lines []string) {
	for m := range t.Methods() {
		if m.Exported() {
			lines = append(lines, fmt.Sprintf("method %s.%s%s", owner, m.Name(), p.signature(m)))
		} else {
			lines = append(lines, fmt.Sprintf("method %s: no other package can implement it", owner))
		}
	}
	return lines
}

// signature returns the parameters and results of a function.
func (p *Package) signature(f *types.Func) string {
	return p.parameters(f.Signature().TypeParams()) + strings.TrimPrefix(p.text(f.Type()), "func")
}

// text returns a type as the package's users write it, but with its own name left out.
func (p *Package) text(t types.Type) string {
	return types.TypeString(unnamed(t), func(other *types.Package) string {
		if other == p.types {
			return ""
		}
		return other.Name()
	})
}

// unnamed returns a type without names of parameters.
func unnamed(t types.Type) types.Type {
	switch t := t.(type) {
	case *types.Pointer:
		return types.NewPointer(unnamed(t.Elem()))
	case *types.Slice:
		return types.NewSlice(unnamed(t.Elem()))
	case *types.Map:
		return types.NewMap(unnamed(t.Key()), unnamed(t.Elem()))
	case *types.Signature:
		return types.NewSignatureType(nil, nil, nil, unnamedAll(t.Params()), unnamedAll(t.Results()), t.Variadic())
	}
	return t
}

func unnamedAll(vars *types.Tuple) *types.Tuple {
	var all []*types.Var
	for v := range vars.Variables() {
		all = append(all, types.NewParam(v.Pos(), v.Pkg(), "", unnamed(v.Type())))
	}
	return types.NewTuple(all...)
}
