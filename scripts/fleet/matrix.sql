-- What images have in common, two by two: the files and bytes of contents that both hold. A pair
-- stands there once, an image with itself too, which is what it holds; pairs that have nothing in
-- common are left out. As the matrix of `strata reuse`.
WITH
uses AS (SELECT DISTINCT image, diff_id FROM image_layers),
ranked AS (
    SELECT image, row_number() OVER (ORDER BY image) AS place
    FROM (SELECT DISTINCT image FROM uses) AS each_image
),
owned AS (
    SELECT DISTINCT ranked.place, by_layer.content_group, by_layer.files, by_layer.bytes
    FROM uses
    JOIN ranked ON ranked.image = uses.image
    JOIN layer_groups AS by_layer ON by_layer.diff_id = uses.diff_id
),
sets AS (
    SELECT content_group, max(files) AS files, max(bytes) AS bytes,
           array_sort(array_agg(place)) AS holders
    FROM owned GROUP BY content_group
),
-- What the same images hold is one sum; its first group stands for it.
sums AS (
    SELECT min(content_group) AS content_group, sum(files) AS files, sum(bytes) AS bytes
    FROM sets GROUP BY holders
),
kept AS (
    SELECT owned.place, sums.content_group, sums.files, sums.bytes
    FROM sums JOIN owned ON owned.content_group = sums.content_group
),
pairs AS (
    SELECT one.place AS one_place, other.place AS other_place, sum(one.files) AS files,
           sum(one.bytes) AS bytes
    FROM kept AS one
    JOIN kept AS other ON other.content_group = one.content_group AND other.place >= one.place
    GROUP BY one.place, other.place
)
SELECT lower(hex(one.image)) AS one_image, lower(hex(other.image)) AS other_image,
       CAST(pairs.files AS BIGINT) AS files, pairs.bytes
FROM pairs
JOIN ranked AS one ON one.place = pairs.one_place
JOIN ranked AS other ON other.place = pairs.other_place
ORDER BY one_image, other_image;
