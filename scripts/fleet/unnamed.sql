-- Contents that only images without a name hold, in any store: what removing those images frees in
-- one store that has all. Largest first; the sum of `size` is the UNIQUE of `strata df IMAGE...`.
WITH
uses AS (SELECT DISTINCT image, diff_id FROM image_layers),
-- Layers of an image with a name, and layers that no image has, keep what they hold.
keeping AS (
    SELECT DISTINCT layers.diff_id
    FROM layers
    LEFT JOIN uses ON uses.diff_id = layers.diff_id
    LEFT JOIN names ON names.image = uses.image
    WHERE uses.image IS NULL OR names.image IS NOT NULL
),
of_layers AS (
    SELECT held.diff_id, held.digest, held.size, keeping.diff_id AS keeper
    FROM held LEFT JOIN keeping ON keeping.diff_id = held.diff_id
),
lost AS (
    SELECT digest, max(size) AS size FROM of_layers GROUP BY digest HAVING count(keeper) = 0
)
SELECT lower(hex(lost.digest)) AS digest, max(lost.size) AS size,
       count(DISTINCT uses.image) AS images
FROM lost
JOIN of_layers ON of_layers.digest = lost.digest
JOIN uses ON uses.diff_id = of_layers.diff_id
GROUP BY lost.digest
ORDER BY size DESC, digest;
