// The Go client, told on standard input what to read: see tests/python/clients/programs.py.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	sharing "github.com/magpierre/go_delta_sharing_client"
)

type asked struct {
	Do    string
	Table string
}

type answer map[string]any

func value(column arrow.Array, at int) any {
	if column.IsNull(at) {
		return nil
	}
	switch column := column.(type) {
	case *array.Boolean:
		return column.Value(at)
	case *array.Int32:
		return column.Value(at)
	case *array.Int64:
		return column.Value(at)
	case *array.Float32:
		return column.Value(at)
	case *array.Float64:
		return column.Value(at)
	case *array.Binary:
		return hex.EncodeToString(column.Value(at))
	default: // text, and dates such as 2024-01-31
		return column.ValueStr(at)
	}
}

func table(name string) sharing.Table {
	parts := strings.Split(name, ".")
	return sharing.Table{Share: parts[0], Schema: parts[1], Name: parts[2]}
}

func rows(ctx context.Context, client sharing.SharingClient, name string) (answer, error) {
	files, err := client.ListFilesInTable(ctx, table(name))
	if err != nil {
		return nil, err
	}
	found, partitions := []map[string]any{}, []map[string]string{}
	for _, file := range files.AddFiles {
		partitions = append(partitions, file.PartitionValues)
		data, err := client.ReadFileUrlToArrowTable(ctx, file.Url)
		if err != nil {
			return nil, err
		}
		reader := array.NewTableReader(data, 0)
		for reader.Next() {
			batch := reader.Record()
			for at := range int(batch.NumRows()) {
				row := map[string]any{}
				for column, field := range batch.Schema().Fields() {
					row[field.Name] = value(batch.Column(column), at)
				}
				found = append(found, row)
			}
		}
		reader.Release()
		data.Release()
	}
	return answer{"rows": found, "partitions": partitions}, nil
}

func changes(ctx context.Context, client sharing.SharingClient, name string) (answer, error) {
	first := int64(1)
	found, err := client.ListTableChanges(ctx, table(name), sharing.CdfOptions{StartingVersion: &first})
	if err != nil {
		return nil, err
	}
	return answer{"add": len(found.Action.Add), "cdf": len(found.Action.Cdf), "remove": len(found.Action.Remove)}, nil
}

func tell(ctx context.Context, client sharing.SharingClient, asked asked) (told answer) {
	defer func() {
		if panicked := recover(); panicked != nil {
			told = answer{"error": fmt.Sprint(panicked), "panicked": true}
		}
	}()
	var err error
	switch asked.Do {
	case "tables":
		var tables []sharing.Table
		tables, _, err = client.ListAllTables(ctx, 0, "")
		names := []string{}
		for _, table := range tables {
			names = append(names, table.Share+"."+table.Schema+"."+table.Name)
		}
		told = answer{"tables": names}
	case "version":
		var version int64
		version, err = client.GetTableVersion(ctx, table(asked.Table))
		told = answer{"version": version}
	case "changes":
		told, err = changes(ctx, client, asked.Table)
	default:
		told, err = rows(ctx, client, asked.Table)
	}
	if err != nil {
		return answer{"error": err.Error()}
	}
	return told
}

func main() {
	client, err := sharing.NewSharingClient(os.Args[1])
	if err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var asked asked
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			panic(err)
		}
		text, err := json.Marshal(tell(context.Background(), client, asked))
		if err != nil {
			panic(err)
		}
		fmt.Println(string(text))
	}
}
