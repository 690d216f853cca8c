package lint

// Prose runs every check that needs nothing but the text, and measures it.
func (p *Project) Prose() ([]Finding, Figures) {
	var found []Finding
	figures := p.measure()
	found = append(found, figures.judge()...)
	found = append(found, p.longLines()...)
	found = append(found, p.headless()...)
	found = append(found, p.links()...)
	found = append(found, p.TestNames()...)
	sorted(found)
	return found, figures
}
