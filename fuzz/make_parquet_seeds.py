"""Makes the seeds fuzz/corpus/parquet/good_* and bad_* with pyarrow: make_parquet_seeds.py FOLDER. All hold the rows below."""
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq

folder = pathlib.Path(sys.argv[1])
rows = ["", " = Title = \n", None, "caf\u00e9 \n", "", "last"] * 3
table = pa.table({"id": list(range(len(rows))), "text": rows, "more": pa.array([["x"], []] * 9)})


def write(name, **options):
    pq.write_table(table, folder / name, **options)


write("good_snappy.parquet")
write("good_plain.parquet", compression="none", use_dictionary=False)
write("good_zstd_v2_pages.parquet", compression="zstd", data_page_version="2.0", use_dictionary=False)
write("good_gzip_groups.parquet", compression="gzip", row_group_size=4)
write("good_delta.parquet", use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
required = pa.schema([pa.field("text", pa.string(), nullable=False)])
pq.write_table(pa.table({"text": [row or "" for row in rows]}, schema=required), folder / "good_required.parquet")
pq.write_table(pa.table({"words": ["a"]}), folder / "bad_other_column.parquet")
pq.write_table(pa.table({"text": [1, 2]}), folder / "bad_numbers.parquet")

good = (folder / "good_snappy.parquet").read_bytes()
(folder / "bad_half.parquet").write_bytes(good[: len(good) // 2])
(folder / "bad_footer.parquet").write_bytes(good[:-8] + b"\xff\xff\xff\x7f" + b"PAR1")
plain = bytearray((folder / "good_plain.parquet").read_bytes())
plain[plain.index(b" = Title") - 4 : plain.index(b" = Title")] = b"\xff\xff\xff\x7f"  # a text of 2 GB
(folder / "bad_length.parquet").write_bytes(plain)
