-- The contents that most images hold: their bytes, and how many images, layers and names have them.
WITH
held AS (
    SELECT DISTINCT diff_id, node, digest, size FROM entries WHERE digest IS NOT NULL
),
uses AS (SELECT DISTINCT image, diff_id FROM image_layers),
in_images AS (
    SELECT held.digest, count(DISTINCT uses.image) AS images
    FROM held JOIN uses ON uses.diff_id = held.diff_id GROUP BY held.digest
),
in_layers AS (
    SELECT digest, max(size) AS size, count(DISTINCT diff_id) AS layers, count(*) AS names
    FROM held GROUP BY digest
)
SELECT lower(hex(in_layers.digest)) AS digest, in_layers.size, in_images.images,
       in_layers.layers, in_layers.names
FROM in_layers JOIN in_images ON in_images.digest = in_layers.digest
ORDER BY in_images.images DESC, in_layers.size DESC, digest
LIMIT 100;
