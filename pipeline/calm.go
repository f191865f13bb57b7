package pipeline

// A Substitute is a RandomStage that cannot be left out where nothing is to be
// random: it names the sample stages that take its place, in their order.
type Substitute interface{ Substitute() []Stand }

// A Stand is a sample stage that takes the place of another: its name in the YAML, and
// its options, a value of the type that it was registered with.
type Stand struct {
	Name    string
	Options any
}

// calm is sample stages without what is random in them: how an image is made for
// a network that was trained on them.
func calm(items []sampleItem) []sampleItem {
	var out []sampleItem
	for _, item := range items {
		if r, ok := item.Value.(RandomStage); ok && r.Random() {
			s, ok := item.Value.(Substitute)
			if !ok {
				continue
			}
			for _, stand := range s.Substitute() {
				item.Name, item.Options = stand.Name, stand.Options
				out = append(out, item)
			}
			continue
		}
		out = append(out, item)
	}
	return out
}
