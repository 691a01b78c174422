// `throughline preview FILE`: what events would become, nothing stored. `throughline trace`: what became of one.
import { z } from 'zod';
import { POLICY } from '../../projections/persons.ts';
import { type Decoded, decodeStructured } from '../../schemas/cloudevent.ts';
import type { Fact } from '../../schemas/facts.ts';
import { anonymousStreams, identityStream, isAnonymous, isWorkspaceId, nodeKey, normaliseIdentity, type WorkspaceKeys, workspaceKeys } from '../../schemas/identity.ts';
import { readRecorded } from '../../schemas/recorded.ts';
import type { Options } from '../config.ts';
import { type DryRun, dryRun, factsOf } from '../door.ts';
import { OperatingError } from '../errors.ts';
import type { RecordedEvent, View } from '../ports.ts';
import { SECRET_BYTES } from '../workspaces.ts';
import { type Folder, openFolder, openWorkspaces } from './folder.ts';
import { type Element, elementsOf } from './import.ts';
import { count, explainFault, type Io, print, printable, printJson } from './terminal.ts';
