// Verify a tiled log with the Go project's own packages, which share no code with ours.
//
// Usage: verify KEY DIRECTORY…
//
// Of every log: its checkpoint is signed (golang.org/x/mod/sumdb/note); every tile it needs leads
// to the signed root, every entry to its leaf, and proofs of inclusion and consistency hold
// (golang.org/x/mod/sumdb/tlog, whose tile/8/L/N is C2SP's tile/L/N).
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const width = 256

type tiles struct{ directory string }

func (t tiles) Height() int { return 8 }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(t.directory, path))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func must(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func readEntries(directory string, size int64) [][]byte {
	var entries [][]byte
	for n := int64(0); n*width < size; n++ {
		tile := tlog.Tile{H: 8, L: 0, N: n, W: width}
		if size-n*width < width {
			tile.W = int(size - n*width)
		}
		path := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
		data, err := os.ReadFile(filepath.Join(directory, path))
		must(err, directory)
		for len(data) > 0 {
			if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
				must(fmt.Errorf("%s: cut short", path), directory)
			}
			length := 2 + int(binary.BigEndian.Uint16(data))
			entries, data = append(entries, data[2:length]), data[length:]
		}
	}
	return entries
}

func verify(directory string, verifier note.Verifier) {
	signed, err := os.ReadFile(filepath.Join(directory, "checkpoint"))
	must(err, directory)
	opened, err := note.Open(signed, note.VerifierList(verifier))
	must(err, directory)
	lines := strings.Split(opened.Text, "\n")
	var size int64
	_, err = fmt.Sscan(lines[1], &size)
	must(err, directory)
	root, err := tlog.ParseHash(lines[2])
	must(err, directory)

	reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tiles{directory})
	entries := readEntries(directory, size)
	if int64(len(entries)) != size {
		must(fmt.Errorf("%d entries, %d signed", len(entries), size), directory)
	}
	var indexes []int64
	for n := range entries {
		indexes = append(indexes, tlog.StoredHashIndex(0, int64(n)))
	}
	hashes, err := reader.ReadHashes(indexes)
	must(err, directory)
	for n, entry := range entries {
		if tlog.RecordHash(entry) != hashes[n] {
			must(fmt.Errorf("entry %d is not the one in the tree", n), directory)
		}
	}
	for _, n := range []int64{0, size / 2, size - 1} {
		proof, err := tlog.ProveRecord(size, n, reader)
		must(err, directory)
		must(tlog.CheckRecord(proof, size, root, n, tlog.RecordHash(entries[n])), directory)
		older, err := tlog.TreeHash(n+1, reader)
		must(err, directory)
		grown, err := tlog.ProveTree(size, n+1, reader)
		must(err, directory)
		must(tlog.CheckTree(grown, size, root, n+1, older), directory)
	}
	fmt.Printf("%s %d %s\n", lines[0], size, root)
}

func main() {
	verifier, err := note.NewVerifier(os.Args[1])
	must(err, "key")
	for _, directory := range os.Args[2:] {
		verify(directory, verifier)
	}
}
