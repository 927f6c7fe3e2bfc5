-- Contents that only images without a name hold, in any store: what removing those images frees in
-- one store that has all. Largest first; the sum of `size` is the UNIQUE of `strata df IMAGE...`.
WITH
held AS (SELECT DISTINCT diff_id, digest, size FROM entries WHERE digest IS NOT NULL),
owned AS (
    SELECT DISTINCT image_layers.image, held.digest, held.size
    FROM image_layers JOIN held ON held.diff_id = image_layers.diff_id
),
loose AS (
    SELECT DISTINCT digest FROM held
    WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)
),
named AS (SELECT DISTINCT image FROM names)
SELECT lower(hex(owned.digest)) AS digest, max(owned.size) AS size, count(*) AS images
FROM owned
LEFT JOIN named ON named.image = owned.image
LEFT JOIN loose ON loose.digest = owned.digest
GROUP BY owned.digest
HAVING count(named.image) = 0 AND count(loose.digest) = 0
ORDER BY size DESC, digest;
