package pipeline

// A Substitute is a RandomStage that cannot be left out where nothing is to be
// random: it names the sample stage that takes its place, with the same options.
type Substitute interface{ Substitute() string }

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
			item.Name = s.Substitute()
		}
		out = append(out, item)
	}
	return out
}
