-- What images have in common, two by two: the files and bytes of contents that both hold. A pair
-- stands there once, an image with itself too, which is what it holds; pairs that have nothing in
-- common are left out. As the matrix of `strata reuse`.
WITH
held AS (SELECT DISTINCT diff_id, digest, size FROM entries WHERE digest IS NOT NULL),
uses AS (SELECT DISTINCT image, diff_id FROM image_layers),
owned AS (
    SELECT DISTINCT uses.image, held.digest, held.size
    FROM uses JOIN held ON held.diff_id = uses.diff_id
)
SELECT lower(hex(one.image)) AS one_image, lower(hex(other.image)) AS other_image,
       count(*) AS files, sum(one.size) AS bytes
FROM owned AS one JOIN owned AS other ON other.digest = one.digest AND other.image >= one.image
GROUP BY one.image, other.image
ORDER BY one_image, other_image;
