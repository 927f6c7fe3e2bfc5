-- The images that are built on one: all of its layers are their lowest. How many stores have each,
-- how many layers it has of its own, and their bytes with nothing shared. Asked before:
--   CREATE TEMPORARY VIEW asked_image AS SELECT '64 hex digits' AS image;
WITH
uses AS (SELECT DISTINCT image, position, diff_id, chain_id FROM image_layers),
tops AS (SELECT image, max(position) AS position FROM uses GROUP BY image),
-- The chain id names the whole stack up to a layer.
base AS (
    SELECT uses.image, uses.position, uses.chain_id
    FROM uses
    JOIN tops ON tops.image = uses.image AND tops.position = uses.position
    JOIN asked_image ON lower(hex(uses.image)) = asked_image.image
),
children AS (
    SELECT uses.image, base.position
    FROM uses
    JOIN base ON base.chain_id = uses.chain_id AND base.position = uses.position
    WHERE uses.image <> base.image
),
known AS (SELECT diff_id, max(apparent) AS apparent FROM layers GROUP BY diff_id),
own AS (
    SELECT uses.image, count(*) AS layers, sum(known.apparent) AS bytes
    FROM uses
    JOIN children ON children.image = uses.image
    JOIN known ON known.diff_id = uses.diff_id
    WHERE uses.position > children.position
    GROUP BY uses.image
),
stores AS (SELECT image, count(DISTINCT store) AS stores FROM images GROUP BY image),
called AS (SELECT image, min(name) AS name FROM names GROUP BY image)
SELECT lower(hex(children.image)) AS image, called.name, stores.stores,
       coalesce(own.layers, 0) AS own_layers, coalesce(own.bytes, 0) AS own_bytes
FROM children
JOIN stores ON stores.image = children.image
LEFT JOIN own ON own.image = children.image
LEFT JOIN called ON called.image = children.image
ORDER BY own_bytes DESC, image;
