"""The page that a person reads about an evaluation: one self-contained HTML file, made from what the gate decided on.

scores.py       the rows of results.parquet, as pairs of pictures with raw scores
sweep.py        removal at every detector threshold
label_table.py  which restricted objects are left
champion.py     what differs from the champion
gallery.py      which pictures are shown, and how; pictures.py finds them
axis.py, charts.py   where marks stand; templates/charts.html.j2 draws them as SVG
page.py         puts all of it into templates/page.html.j2
"""
