-- Returns a document whose member at a path is null. Returns the document unchanged if it has no such member.
--
--   p_path   the keys of the member; the index of an element of an array is written as in a JSON Pointer (RFC 6901):
--            digits without a leading zero
CREATE OR REPLACE FUNCTION erase_member(p_document jsonb, p_path text[]) RETURNS jsonb
LANGUAGE plpgsql
IMMUTABLE
AS $$
BEGIN
    FOR n IN 1 .. cardinality(p_path) LOOP
        -- PostgreSQL also accepts negative indexes, which count from the end.
        IF jsonb_typeof(p_document #> p_path[: n - 1]) = 'array' AND p_path[n] !~ '^(0|[1-9][0-9]*)$' THEN
            RETURN p_document;
        END IF;
    END LOOP;
    IF p_document #> p_path IS NULL THEN
        RETURN p_document;
    END IF;
    RETURN jsonb_set(p_document, p_path, 'null', false);
END
$$;
