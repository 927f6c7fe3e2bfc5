-- The contents that most images hold: their bytes, and how many images, layers and names have them.
WITH
of_layers AS (SELECT * FROM held),
uses AS (SELECT DISTINCT image, diff_id FROM image_layers),
ranked AS (
    SELECT diff_id, row_number() OVER (ORDER BY diff_id) AS place
    FROM (SELECT DISTINCT diff_id FROM uses) AS each_layer
),
holders AS (
    SELECT of_layers.digest, array_sort(array_agg(ranked.place)) AS places
    FROM of_layers JOIN ranked ON ranked.diff_id = of_layers.diff_id GROUP BY of_layers.digest
),
-- Images are counted once for all contents that the same layers hold.
sets AS (SELECT places, min(digest) AS digest FROM holders GROUP BY places),
counts AS (
    SELECT sets.digest, count(DISTINCT uses.image) AS images
    FROM sets
    JOIN of_layers ON of_layers.digest = sets.digest
    JOIN uses ON uses.diff_id = of_layers.diff_id
    GROUP BY sets.digest
),
in_images AS (
    SELECT holders.digest, counts.images
    FROM holders
    JOIN sets ON sets.places = holders.places
    JOIN counts ON counts.digest = sets.digest
),
in_layers AS (
    SELECT digest, max(size) AS size, count(*) AS layers, CAST(sum(names) AS BIGINT) AS names
    FROM of_layers GROUP BY digest
)
SELECT lower(hex(in_layers.digest)) AS digest, in_layers.size, in_images.images,
       in_layers.layers, in_layers.names
FROM in_layers JOIN in_images ON in_images.digest = in_layers.digest
ORDER BY in_images.images DESC, in_layers.size DESC, digest
LIMIT 100;
