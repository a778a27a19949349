// What the host's page has, as far as web/js uses it. Marked optional: what not every page since ComfyUI 0.3.75 has.

interface HostSlot {
  name: string;
  type?: string;
  localized_name?: string;
}

interface HostWidget {
  name: string;
  type?: string;
  advanced?: boolean;
  value: unknown;
  onRemove?(): void;
  options: {
    advanced?: boolean;
    min?: number;
    max?: number;
    step?: number;
    step2?: number;
    values?: unknown;
    /** Ours: the step that the node declares. */
    wan22Step?: number;
  };
  label?: string;
  hidden?: boolean;
  serialize?: boolean;
  computedHeight?: number;
  callback?(value: unknown, ...more: unknown[]): void;
}

interface HostLink {
  origin_id: string | number;
  origin_slot: number;
}

interface HostGraph {
  getNodeById?(id: string | number): HostNode | null | undefined;
  subgraphs?: Map<string, HostGraph>;
}

interface HostNode {
  title: string;
  comfyClass: string;
  properties?: Record<string, unknown>;
  size: [number, number];
  widgets?: HostWidget[];
  inputs?: HostSlot[];
  outputs?: HostSlot[];
  badges?: unknown[];
  showAdvanced?: boolean;
  graph?: HostGraph;
  subgraph?: HostGraph;
  isInputConnected(place: number): boolean;
  getInputLink(place: number): HostLink | null;
  computeSize(): [number, number];
  setSize(size: [number, number]): void;
  addDOMWidget?(name: string, type: string, element: HTMLElement, options: object): HostWidget;
  onDrawBackground?(): void;
  hideOutputImages?: boolean;
  previewMediaType?: string;
}

interface HostBadge {
  text: string;
  bgColor: string;
}

interface HostNodeDef {
  display_name: string;
  description?: string;
  category?: string;
  input: Record<"required" | "optional", Record<string, [unknown, { options?: unknown[]; tooltip?: string }?]> | undefined>;
}

interface HostExtension {
  name: string;
  setup?(): void;
  nodeCreated?(node: HostNode): void;
  loadedGraphNode?(node: HostNode): void;
  refreshComboInNodes?(): void;
  beforeConfigureGraph?(workflow: object): void;
  afterConfigureGraph?(): void;
  addCustomNodeDefs?(defs: Record<string, HostNodeDef>): Promise<void>;
}

interface HostApp {
  graph: HostGraph;
  rootGraph?: HostGraph;
  canvas?: { setDirty?(foreground: boolean, background: boolean): void };
  extensionManager?: { setting?: { get(id: string): unknown } };
  registerExtension(extension: HostExtension): void;
}

interface HostApi {
  fetchApi(path: string): Promise<Response>;
  // what an event holds is the affair of who sends it
  addEventListener(event: string, listener: (event: { detail: any }) => void): void;
}

declare module "*/scripts/api.js" {
  export const api: HostApi;
}

declare module "*/scripts/app.js" {
  export const app: HostApp;
}

declare var LGraphBadge: (new (options: { text: string; fgColor: string }) => HostBadge) | undefined;

declare var LiteGraph: { registered_node_types: Record<string, { nodeData?: HostNodeDef } | undefined> };
