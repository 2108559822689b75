-- Erasures in order. $1 after this one, $2 up to this one (NULL: all), $3 the largest number
SELECT erasure, reason, aggregate_types::text[] AS aggregate_types, requested_at, requested_by::text AS requested_by,
       events, streams, snapshots, announced_position, hidden_at, removed_at
  FROM erasures
 WHERE erasure > $1
   AND erasure <= coalesce($2, erasure)
 ORDER BY erasure
 LIMIT $3
