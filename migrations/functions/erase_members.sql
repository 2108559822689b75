-- Returns a document of an event whose erased members are null.
--
--   p_document   event_data or metadata
--   p_name       which of them: event_data or metadata
--   p_members    the erased members of the event as JSON Pointers (RFC 6901) that begin with the name of the document;
--                NULL: all of it
CREATE OR REPLACE FUNCTION erase_members(p_document jsonb, p_name text, p_members text[]) RETURNS jsonb
LANGUAGE plpgsql
IMMUTABLE
AS $$
DECLARE
    v_member text;
    v_keys   text[];
BEGIN
    IF p_members IS NULL THEN
        RETURN CASE WHEN p_name = 'event_data' THEN 'null'::jsonb END;
    END IF;
    FOREACH v_member IN ARRAY p_members LOOP
        -- A pointer begins with a slash, so the first element is empty.
        v_keys := string_to_array(v_member, '/');
        CONTINUE WHEN v_keys[2] <> p_name;
        p_document := erase_member(
            p_document,
            (SELECT array_agg(replace(replace(k.key, '~1', '/'), '~0', '~') ORDER BY k.n)
               FROM unnest(v_keys[3 :]) WITH ORDINALITY AS k (key, n)));
    END LOOP;
    RETURN p_document;
END
$$;
