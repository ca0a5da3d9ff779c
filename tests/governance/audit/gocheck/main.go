// Checks a log of ours with Go's own verifier (golang.org/x/mod/sumdb, as Debian ships it), and none of our code.
//
//	gocheck log VKEY FOLDER              an export: signature, every tile, every entry, inclusion at each bundle's ends
//	gocheck record VKEY FILE             a proof of one entry, as `falaj audit prove` writes it
//	gocheck tree VKEY OLD NEW PROOF      that a log grew: two checkpoints, and what `falaj audit consistency --json` said
//	gocheck grew VKEY OLD FOLDER         the same from an export, with a proof that Go makes from its tiles
//
// It says what held and exits 0, or what did not and exits 1.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8 // of a tile: 256 hashes

func main() {
	told, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	}
	fmt.Println(told)
}

func run(args []string) (string, error) {
	switch {
	case len(args) == 3 && args[0] == "log":
		return checkLog(args[1], args[2])
	case len(args) == 3 && args[0] == "record":
		return checkRecord(args[1], args[2])
	case len(args) == 5 && args[0] == "tree":
		return checkTree(args[1], args[2], args[3], args[4])
	case len(args) == 4 && args[0] == "grew":
		return checkGrew(args[1], args[2], args[3])
	}
	return "", errors.New("usage: gocheck log VKEY FOLDER | record VKEY FILE | tree VKEY OLD NEW PROOF | grew VKEY OLD FOLDER")
}

// opened is the tree that a checkpoint names (c2sp.org/tlog-checkpoint), if its signature is by vkey.
func opened(vkey string, signed []byte) (tree tlog.Tree, err error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tree, err
	}
	n, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tree, errors.New("the checkpoint is of another log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return tree, errors.New("the checkpoint names no size")
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// folder reads tiles of an export. Go writes their height into a path (tile/8/0/001), C2SP does not (tile/0/001).
type folder string

func (f folder) Height() int { return height }

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, len(tiles))
	for i, tile := range tiles {
		data, err := os.ReadFile(filepath.Join(string(f), pathOf(tile)))
		if err != nil {
			return nil, err
		}
		found[i] = data
	}
	return found, nil
}

func pathOf(tile tlog.Tile) string {
	return "tile/" + strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", height))
}

// bundle is where entries lie: at the paths of level 0, under the name "entries".
func bundle(tile tlog.Tile) string {
	return "tile/entries/" + strings.TrimPrefix(pathOf(tile), "tile/0/")
}

func checkLog(vkey, dir string) (string, error) {
	signed, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return "", err
	}
	tree, err := opened(vkey, signed)
	if err != nil {
		return "", err
	}
	reader := tlog.TileHashReader(tree, folder(dir))
	for at := int64(0); at < tree.N; at += 1 << height {
		width := min(tree.N-at, 1<<height)
		entries, err := entriesOf(dir, tlog.Tile{H: height, L: 0, N: at >> height, W: int(width)})
		if err != nil {
			return "", err
		}
		if err := checkEntries(tree, reader, at, entries); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("log: %d entries, root %s", tree.N, tree.Hash), nil
}

// checkEntries compares each entry of a bundle with its leaf, and proves the first and the last one to be in the tree.
func checkEntries(tree tlog.Tree, reader tlog.HashReader, at int64, entries [][]byte) error {
	indexes := make([]int64, len(entries))
	for i := range entries {
		indexes[i] = tlog.StoredHashIndex(0, at+int64(i))
	}
	leaves, err := reader.ReadHashes(indexes)
	if err != nil {
		return err
	}
	for i, entry := range entries {
		if leaves[i] != tlog.RecordHash(entry) {
			return fmt.Errorf("entry %d does not give its leaf", at+int64(i))
		}
	}
	for _, i := range []int{0, len(entries) - 1} {
		proof, err := tlog.ProveRecord(tree.N, at+int64(i), reader)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, at+int64(i), tlog.RecordHash(entries[i])); err != nil {
			return fmt.Errorf("entry %d: %w", at+int64(i), err)
		}
	}
	return nil
}

// entriesOf are the entries of a bundle, each after its length in two bytes.
func entriesOf(dir string, tile tlog.Tile) ([][]byte, error) {
	name := bundle(tile)
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("%s ends within an entry", name)
		}
		length := 2 + int(binary.BigEndian.Uint16(data))
		entries, data = append(entries, data[2:length]), data[length:]
	}
	if len(entries) != tile.W {
		return nil, fmt.Errorf("%s has %d entries, not %d", name, len(entries), tile.W)
	}
	return entries, nil
}

// checkRecord checks a c2sp.org/tlog-proof file that carries its entry.
func checkRecord(vkey, file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	head, signed, found := bytes.Cut(data, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return "", errors.New("this is no proof of an entry")
	}
	tree, err := opened(vkey, signed)
	if err != nil {
		return "", err
	}
	extra, index := strings.TrimPrefix(lines[1], "extra "), strings.TrimPrefix(lines[2], "index ")
	if extra == lines[1] || index == lines[2] {
		return "", errors.New("the proof carries no entry, or names no index")
	}
	entry, err := base64.StdEncoding.Strict().DecodeString(extra)
	if err != nil {
		return "", err
	}
	at, err := strconv.ParseInt(index, 10, 64)
	if err != nil || at < 0 {
		return "", errors.New("the proof names no index")
	}
	proof, err := hashes(lines[3:])
	if err != nil {
		return "", err
	}
	if err := tlog.CheckRecord(proof, tree.N, tree.Hash, at, tlog.RecordHash(entry)); err != nil {
		return "", err
	}
	return fmt.Sprintf("record: entry %d of %d, root %s", at, tree.N, tree.Hash), nil
}

func checkTree(vkey, oldFile, newFile, proofFile string) (string, error) {
	older, newer, err := both(vkey, oldFile, newFile)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(proofFile)
	if err != nil {
		return "", err
	}
	var told struct{ Hashes []string }
	if err := json.Unmarshal(data, &told); err != nil {
		return "", err
	}
	proof, err := hashes(told.Hashes)
	if err != nil {
		return "", err
	}
	if err := tlog.CheckTree(proof, newer.N, newer.Hash, older.N, older.Hash); err != nil {
		return "", err
	}
	return fmt.Sprintf("tree: %d entries begin with the %d", newer.N, older.N), nil
}

func checkGrew(vkey, oldFile, dir string) (string, error) {
	older, newer, err := both(vkey, oldFile, filepath.Join(dir, "checkpoint"))
	if err != nil {
		return "", err
	}
	proof, err := tlog.ProveTree(newer.N, older.N, tlog.TileHashReader(newer, folder(dir)))
	if err != nil {
		return "", err
	}
	if err := tlog.CheckTree(proof, newer.N, newer.Hash, older.N, older.Hash); err != nil {
		return "", err
	}
	return fmt.Sprintf("grew: %d entries begin with the %d", newer.N, older.N), nil
}

func both(vkey, oldFile, newFile string) (older, newer tlog.Tree, err error) {
	for file, tree := range map[string]*tlog.Tree{oldFile: &older, newFile: &newer} {
		signed, err := os.ReadFile(file)
		if err != nil {
			return older, newer, err
		}
		if *tree, err = opened(vkey, signed); err != nil {
			return older, newer, fmt.Errorf("%s: %w", file, err)
		}
	}
	return older, newer, nil
}

func hashes(lines []string) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(lines))
	for i, line := range lines {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		found[i] = hash
	}
	return found, nil
}

func min(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}
